"""Classes and functions that the `_target_` of a yaml builds: one module or package per folder of conf/."""
