"""Numbers and times in sentences."""

import time


def plural(count: int, noun: str, several: str = '') -> str:
    """Return a number with its noun, such as '1 epoch' or '2 epochs'; `several` is its plural where no s makes it."""
    return f'{count} {noun}' if count == 1 else f'{count} {several or f"{noun}s"}'


def duration(seconds: float) -> str:
    """Return a length of time with its units, such as '42 s', '12 min', '3 h 05 min', '2 d 4 h'."""
    whole = round(seconds)
    if whole < 90:
        return f'{whole} s'
    minutes = round(whole / 60)
    if minutes < 60:
        return f'{minutes} min'
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f'{hours} h {minutes:02d} min'
    days, hours = divmod(hours, 24)
    return f'{days} d {hours} h'


def clock_time(seconds: float) -> str:
    """Return the local time after so many seconds from now, such as '14:05', or 'Fri 14:05' of another day."""
    now = time.time()
    end = time.localtime(now + seconds)
    same_day = end[:3] == time.localtime(now)[:3]
    return time.strftime('%H:%M' if same_day else '%a %d %b %H:%M', end)
