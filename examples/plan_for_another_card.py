"""Plans FLUX.1-dev for a card that is not in this machine: nothing is downloaded, nothing runs on a GPU."""

import memplan
from memplan.facts import GIB


def main() -> None:
    """Print the four picks, and the code of one."""
    found = memplan.recommend("flux.1-dev", target=memplan.Target(gpu="RTX 4090", ram=64), height=768, width=1360)
    for preference, plan in found.picks:
        print(f"{preference}: {plan}")
        print(f"    {plan.bill.peak.memory.required / GIB:.2f} GiB of device memory. {plan.reason}")
    pick = found.pick("quality")
    if pick is not None:
        print("\nThe quality pick as code, where `pipe` is the pipeline:")
        for strategy in pick.strategies:
            print("\n".join(strategy.code()))


if __name__ == "__main__":
    main()
