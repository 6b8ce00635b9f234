"""The report as one HTML file: the timeline of device memory for each pick, and the front.

uPlot 1.6.32, MIT licence (uPlot.LICENSE.txt), draws the charts; `vendored.json` says where its files come from and what
they hash to.
"""
