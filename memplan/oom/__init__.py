"""Reads errors: which memory ran out, if any, and every figure of the text."""

from memplan.oom.allocation import MEMORY as MEMORY
from memplan.oom.allocation import POSSIBLY as POSSIBLY
from memplan.oom.allocation import Allocation as Allocation
from memplan.oom.allocation import Other as Other
from memplan.oom.read import read as read
