"""The `error_type` of an exception."""

# Class names that mean "out of device memory" across torch, TensorFlow and JAX.
_OUT_OF_MEMORY = {"OutOfMemoryError", "ResourceExhaustedError"}
_OUT_OF_MEMORY_WORDS = ("cuda out of memory", "cuda_error_out_of_memory", "failed to allocate memory for requested")
_CANCELLED = {"CancelledError", "Cancelled"}


def error_type(error: BaseException) -> str:
    """The value of the `error_type` label for `error`.

    `timeout`, `cuda_oom` and `cancelled` are recognised whatever library raised them, by the names of the exception's
    classes; anything else is the name of its class. Cancellation is neither failure nor timeout: a caller went away.
    """
    names = [cls.__name__ for cls in type(error).__mro__]
    if isinstance(error, GeneratorExit) or not _CANCELLED.isdisjoint(names):
        return "cancelled"
    if any("timeout" in name.lower() or name == "DeadlineExceeded" for name in names):
        return "timeout"
    if not _OUT_OF_MEMORY.isdisjoint(names):
        return "cuda_oom"
    if isinstance(error, RuntimeError):
        text = str(error).lower()
        if any(words in text for words in _OUT_OF_MEMORY_WORDS):
            return "cuda_oom"
    return names[0]
