# strategies/ is installed as memplan.strategies; this line tells type checkers so.
from strategies import *
