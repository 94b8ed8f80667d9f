"""check=accumulation: is a window cut into micro-batches the same as one big batch? If not, why not?"""

from microstep.examination.accumulation.looking import look

__all__ = ["look"]
