"""Classes and functions that the `_target_` of a yaml builds. One module or package per folder of conf/."""
