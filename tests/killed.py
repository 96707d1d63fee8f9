"""A process that ends at one of its file operations, as SIGKILL ends it."""


class KilledError(BaseException):
    """Not an Exception, so that nothing is caught on its way."""


def killed_at(limit, operations, work, patch):
    """Does `work` up to its operation number `limit`: nothing runs after it, not even what tidies up.

    operations: (module or class, name) of what counts as one. Says whether the work came to its end.
    """
    count, dead = iter(range(10**6)), []
    for owner, name in operations:
        patch.setattr(owner, name, dying(getattr(owner, name), count, limit, dead))
    try:
        work()
    except KilledError:
        return False
    return True


def dying(real, count, limit, dead):
    def operation(*args, **options):
        if dead or next(count) >= limit:
            dead.append(True)
            raise KilledError
        return real(*args, **options)

    return operation
