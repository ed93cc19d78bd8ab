"""`Follower`: serves a run's newest version as it appears, and goes back when it turns out worse.

    look at the pointer ─> load (own thread) ─> compare specs ─> one decision (among the requests) ─> swap

Meanwhile the version before answers. One that is broken is refused with its reason and not tried again until the pointer is
written anew. A version waits while two are in memory. Every look also judges the version that is served by the outcomes of its
episodes (`steer.server.guard`), unless it was gone back to; a worse one is refused, which the run's folder remembers. A person
may take that back there: then the version is served again, and this server does not judge it a second time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import structlog

from steer.engine import Engine
from steer.errors import CheckpointError, SpecError, SteerError
from steer.server.batcher import Batcher
from steer.server.guard import Guard, Outcome
from steer.server.metrics import Metrics
from steer.server.residents import Resident, Residents
from steer.server.warm import probe

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)
_GUARD = Guard()


@dataclass(frozen=True)
class Release:
    """What a run says is its newest version. stamp: differs each time it says so."""

    number: int
    stamp: float


class Releases(Protocol):
    """The versions of one run. All methods may block; after the start they are called from one thread.

    The server knows nothing of a run's folder; who starts it brings one of these.
    """

    def newest(self) -> Release: ...

    def load(self, number: int) -> Engine:
        """The version's engine, verified; raises whatever is wrong with it."""
        ...

    def earlier(self, number: int) -> Sequence[int]:
        """The versions before one that are still there, the last first."""
        ...

    def refused(self) -> Collection[int]:
        """Versions that are not to be served again."""
        ...

    def refuse(self, number: int, why: str) -> None:
        """Remember that a version is not to be served again."""
        ...

    def outcomes(self) -> Sequence[Outcome]:
        """Of all episodes whose version is known, in the order in which they were stored; the same object if nothing is new."""
        ...


@dataclass(frozen=True)
class Following:
    """A run to follow. tried: the release that led to what is served now. broken: versions that could not be loaded then.

    guard: None serves every version that is sound, whatever comes of it.
    """

    releases: Releases
    tried: Release
    guard: Guard | None = _GUARD
    broken: frozenset[int] = frozenset()


def begin(releases: Releases, guard: Guard | None = _GUARD, max_pin_s: float = 60.0) -> tuple[Residents, Following]:
    """Load the newest version or, where it is refused or broken, the last one before it that can be served.

    Raises what is wrong with the newest where there is none.
    """
    release = releases.newest()
    refused = releases.refused()
    broken: dict[int, Exception] = {}
    for number in (release.number, *releases.earlier(release.number)):
        if number in refused:
            _log.warning("version was refused before, trying the one before it", version=number)
            continue
        try:
            residents = Residents(releases.load(number), number, max_pin_s)
        except Exception as error:  # noqa: BLE001 - told here, and raised where nothing else can be served
            _log.warning("version refused, trying the one before it", version=number, reason=str(error))
            broken[number] = error
        else:
            return residents, Following(releases, release, guard, frozenset(broken))
    reason = next(iter(broken.values()), None)
    if reason is None or isinstance(reason, SteerError):
        raise reason or CheckpointError("every version of the run was refused: there is nothing left to serve")
    raise CheckpointError(f"version {release.number} cannot be loaded ({type(reason).__name__}: {reason})") from reason


class Follower:
    """See the module. `run` on the event loop of the server."""

    def __init__(
        self, following: Following, residents: Residents, batcher: Batcher, metrics: Metrics, *, samples: int
    ) -> None:
        """samples: candidates of a version's first decision."""
        self._releases, self._guard = following.releases, following.guard
        self._residents, self._batcher, self._metrics = residents, batcher, metrics
        self._samples = samples
        self._tried = following.tried
        self._broken = set(following.broken)
        self._given_up: set[int] = set()
        self._unwritten: set[int] = set()
        self._judged: tuple[Sequence[Outcome], int] = ((), -1)
        self._said: dict[str, dict[str, object]] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._count(loading=False)

    async def run(self, poll_s: float) -> None:
        """Look again and again, until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except Exception as error:  # noqa: BLE001 - serving goes on whatever happens to the run's folder
                    self._say("cannot follow the run, serving on", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(poll_s)
        finally:
            self._loader.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> None:
        """One look: let go, judge, and change the version if there is a better one to serve."""
        self._residents.retire()
        self._count(loading=False)
        release = await self._aside(self._releases.newest)
        await self._aside(self._judge)
        wanted = await self._aside(lambda: self._wanted(release))
        if wanted is not None:
            await self._change(wanted, release)

    # -- what should be served

    def _wanted(self, release: Release) -> int | None:
        """The version to change to; None while the present one is right. On the loader's thread."""
        refused, served, newest = self._refused(), self._residents.current.number, release.number
        anew = release != self._tried
        if newest not in refused and (anew or newest not in self._broken):
            return newest if anew or served != newest else None
        if served not in refused:
            return None
        behind = [n for n in self._releases.earlier(served) if n not in refused and n not in self._broken]
        if not behind:
            self._say("nothing to go back to: serving a refused version", version=served)
            return None
        older = self._residents.older
        if older is not None and older.number in behind:
            return older.number
        # Of versions that nobody has played, nothing is known.
        known = {outcome.version for outcome in self._outcomes()}
        return next((number for number in behind if number in known), behind[0])

    def _judge(self) -> None:
        """Refuse the version that is served if its episodes say that it is worse. On the loader's thread."""
        served, refused = self._residents.current.number, self._refused()
        # Under a refused version lies what was gone back to, which has been judged in its time.
        if self._guard is None or served in self._given_up or any(number >= served for number in refused):
            return
        outcomes = self._outcomes()
        if outcomes is self._judged[0] and served == self._judged[1]:
            return
        self._judged = (outcomes, served)
        verdict = self._guard.judge(outcomes, served, refused)
        if not verdict.worse:
            return
        _log.warning("version rolled back", version=served, reason=str(verdict))
        self._metrics.refused.labels("worse").inc()
        self._given_up.add(served)
        try:
            self._releases.refuse(served, str(verdict))
        except (OSError, SteerError) as error:
            self._unwritten.add(served)
            _log.error("that a version was rolled back cannot be written down", version=served, reason=str(error))

    def _outcomes(self) -> Sequence[Outcome]:
        """What is known of the versions: nothing while it cannot be read, which must not keep versions from changing."""
        try:
            return self._releases.outcomes()
        except (OSError, SteerError) as error:
            self._say("outcomes cannot be read: no version is judged", reason=f"{type(error).__name__}: {error}")
            return ()

    def _refused(self) -> set[int]:
        """What the run's folder says, and what could not be written there."""
        return {*self._releases.refused(), *self._unwritten}

    # -- changing it

    async def _change(self, number: int, release: Release) -> None:
        older, anew = self._residents.older, number == release.number and release != self._tried
        if older is not None and older.number == number and not anew:
            self._swap(older, 0.0)
            return
        if older is not None:
            pinned = self._residents.pinned()
            self._say("a version waits: two are in memory", version=number, older=older.number, sessions=pinned)
            return
        start = time.monotonic()
        if anew:
            self._tried = release
            # Another version may have had its number.
            self._broken.discard(number)
            self._given_up.discard(number)
        self._count(loading=True)
        try:
            engine = await self._aside(lambda: self._releases.load(number))
            check_same(engine, self._residents.engine)
            await probe(self._batcher, engine, self._samples)
        except Exception as error:  # noqa: BLE001 - a broken version must not end the serving of a sound one
            self._broken.add(number)
            self._metrics.refused.labels("broken").inc()
            _log.warning(
                "version refused, serving on",
                version=number,
                serving=self._residents.current.number,
                reason=f"{type(error).__name__}: {error}",
            )
            return
        self._swap(Resident(number, engine), time.monotonic() - start)

    def _swap(self, resident: Resident, seconds: float) -> None:
        self._residents.swap(resident)
        self._metrics.swaps.inc()
        self._count(loading=False)
        policy, critic = resident.engine.policy, resident.engine.critic
        _log.info(
            "serving another version",
            version=resident.number,
            policy="" if policy is None else policy.version,
            critic="" if critic is None else critic.version,
            seconds=round(seconds, 3),
        )

    def _count(self, loading: bool) -> None:
        self._metrics.version.set(self._residents.current.number)
        self._metrics.resident.set(1 + loading + (self._residents.older is not None))

    async def _aside(self, work: Callable[[], _T]) -> _T:
        """Do what may block on the loader's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._loader, work)

    def _say(self, event: str, **about: object) -> None:
        """Warn, but not of the same thing at every look."""
        if self._said.get(event) != about:
            _log.warning(event, **about)
        self._said[event] = about


def check_same(new: Engine, served: Engine) -> None:
    """Raise `SpecError` unless sessions that were opened with one engine may be answered by the other."""
    problems = []
    for name in ("policy", "critic"):
        now, then = getattr(new, name), getattr(served, name)
        if (now is None) != (then is None):
            problems.append(f"{name}: {'absent' if now is None else 'there'}, but not in the version that is served")
        elif now is not None and now.spec != then.spec:
            differing = [f.name for f in fields(now.spec) if getattr(now.spec, f.name) != getattr(then.spec, f.name)]
            problems.append(f"{name}: its spec differs in {differing}")
    if problems:
        raise SpecError(
            "not what open sessions were promised (" + "; ".join(problems) + "): start the server again to serve it"
        )
