"""One run: plan -> cluster, traffic, faults -> history -> verdict; and series of runs over seeds."""
