"""Finds the plans for a machine: pure and deterministic, without torch."""

from memplan.planner.further import Further as Further
from memplan.planner.further import further as further
from memplan.planner.further import placements as placements
from memplan.planner.judgement import judge as judge
from memplan.planner.plan import PREFERENCES as PREFERENCES
from memplan.planner.plan import Dropped as Dropped
from memplan.planner.plan import Plan as Plan
from memplan.planner.plan import Recommendation as Recommendation
from memplan.planner.plan import check_preference as check_preference
from memplan.planner.saved import Saved as Saved
from memplan.planner.search import recommend as recommend
from memplan.planner.seating import draw as draw
from memplan.planner.seating import seated as seated
from memplan.planner.shortage import Shortage as Shortage
