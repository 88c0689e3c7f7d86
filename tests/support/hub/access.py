"""Who may do what."""

from __future__ import annotations

from dataclasses import dataclass

from support.hub.store import Commit, Repository
from support.hub.wire import Exchange, Refusal


@dataclass(frozen=True)
class User:
    """Whom a token belongs to, and what it may: ``role`` is write, read or fineGrained."""

    name: str
    role: str = "write"
    organisations: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        """Whether the namespace is this user or one of the user's organisations."""
        return namespace == self.name or namespace in self.organisations


TOKENS = {
    "hf_write": User("tester", "write", ("team",)),
    "hf_read": User("tester", "read", ("team",)),
    "hf_other": User("stranger", "write"),
}


def user_of(exchange: Exchange) -> User | None:
    """Who asks; None for the anonymous."""
    header = exchange.headers.get("Authorization", "")
    if not header:
        return None
    user = exchange.hub.tokens.get(header.removeprefix("Bearer ").strip())
    if user is None:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return user


def known_user(exchange: Exchange) -> User:
    """Who asks; the anonymous are turned away."""
    user = user_of(exchange)
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    return user


def readable(exchange: Exchange, kind: str, name: str) -> Repository:
    """The repository, for those who may see it."""
    user = user_of(exchange)
    repository = exchange.hub.store.repositories.get((kind, name))
    is_owner = user is not None and user.owns(name.split("/")[0])
    if repository is None or (repository.private and not is_owner):
        # The real Hub answers the anonymous with 401 and no code, which the client takes for a missing repository,
        # at https:// addresses only. So the code is always sent here.
        raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
    if repository.gated and not is_owner:
        raise Refusal(403 if user else 401, f"Access to model {name} is restricted.", "GatedRepo")
    return repository


def writable(exchange: Exchange, kind: str, name: str) -> Repository:
    """The repository, for those who may change it."""
    repository = readable(exchange, kind, name)
    user = known_user(exchange)
    if user.role == "read" or not user.owns(repository.namespace):
        raise Refusal(403, f"You don't have the required permissions to push to {name}")
    return repository


def commit_at(repository: Repository, revision: str) -> Commit:
    """The commit of a revision."""
    commit = repository.find(revision)
    if commit is None:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit
