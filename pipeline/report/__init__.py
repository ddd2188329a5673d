"""What a run and the runs below it have left -> one page of HTML that needs nothing else."""
