"""Says of each failure of the Hub what it means and what to do."""

from collections.abc import Generator
from contextlib import contextmanager

from huggingface_hub import constants, errors
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

from memplan.catalogue.models import nearest
from memplan.errors import BadInput, Unsupported

INDEX = "model_index.json"
"""The file that makes a repository a pipeline."""
REFUSED = (401, 403)
_FAILURES = (HTTPError, errors.EntryNotFoundError, OSError, ValueError, TypeError, LookupError)
"""What huggingface_hub raises for a Hub that refuses, is out of reach, or answers nonsense."""


@contextmanager
def in_words(hub_id: str, revision: str) -> Generator[None]:
    """Raise BadInput with a sentence for whatever fails while `revision` of `hub_id` is read."""
    try:
        yield
    except BadInput:
        raise
    except _FAILURES as error:
        raise _sentence(hub_id, revision, error) from error


def _sentence(hub_id: str, revision: str, error: Exception) -> BadInput:
    page = f"{constants.ENDPOINT}/{hub_id}"
    match error:
        case errors.GatedRepoError():
            text = f"{hub_id} is gated: accept its terms at {page}, run `hf auth login`, and try again."
        case errors.RevisionNotFoundError():
            text = f"{hub_id} has no revision {revision!r}: {page}/tree/main lists what it has."
        case errors.RepositoryNotFoundError():
            advice = "check the spelling, or run `hf auth login` if it is private"
            text = f"the Hub shows no model {hub_id}: {advice}. {nearest(hub_id)}"
        case errors.RemoteEntryNotFoundError():
            advice = "give the id of one that is, or download its checkpoint and give the file"
            return Unsupported(f"{hub_id} has no {INDEX}, so it is not a diffusers pipeline: {advice}.")
        case errors.HfHubHTTPError() if error.response.status_code in REFUSED:
            text = f"the Hub refuses {hub_id}: see whether {page} opens to you, and run `hf auth login`."
        case errors.HFValidationError():
            text = f"{hub_id} is no Hub id: one has the form owner/name."
        case _:
            advice = "try again when it can be reached, or give a folder or a bundled name"
            text = (
                f"{hub_id} cannot be read from {constants.ENDPOINT} and is not in the Hub's cache here "
                f"({_reason(error)}): {advice}."
            )
    return BadInput(text)


def out_of_reach(error: BaseException) -> str | None:
    """Why the Hub gave nothing, where `error` comes of that, for diffusers' own words say only which file is absent.

    None where it comes of something else.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    return f"{constants.ENDPOINT} cannot be reached, and the Hub's cache here lacks a file ({_reason(cause)})"


def _reason(error: BaseException) -> str:
    """The first cause, in a line."""
    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, errors.HfHubHTTPError):
        return f"HTTP {error.response.status_code}"
    first = next(iter(str(error).splitlines()), "")
    return first or type(error).__name__
