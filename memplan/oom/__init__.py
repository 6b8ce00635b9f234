"""Reads errors: whether one says that memory ran out, which memory, and every figure in its text."""

from memplan.oom.allocation import MEMORY as MEMORY
from memplan.oom.allocation import POSSIBLY as POSSIBLY
from memplan.oom.allocation import Allocation as Allocation
from memplan.oom.allocation import Other as Other
from memplan.oom.read import read as read
