"""From a configuration to a trained run.

From the call to the first step, each record is made of the one before it::

    Folds      what was asked for, and the way to the run of each fold (folds.py)
    Ready      the cohort, checked (``Checked`` of medmtl.checking) and divided, with its tasks (start.py)
    RunFolder  the run on disk, new or to go on with: configuration, plan, splits (medmtl/run_folder.py)
    Session    what is built from that folder and nothing else: batches and learner (session.py)
    Learner    model, optimiser, weighting and their state, on which steps are taken (step.py)
"""
