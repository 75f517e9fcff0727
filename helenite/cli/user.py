"""`helenite user`: who may log in at the gateway."""

from __future__ import annotations

import getpass
import json
import sys
from typing import Annotated

import typer
from argon2 import PasswordHasher

from helenite.cli.connect import DirOption, JsonOption, MasterOption, open_cluster
from helenite.core.errors import EntryExistsError, InvalidRequestError
from helenite.core.pb import common_pb2, master_pb2

app = typer.Typer(help="Users of the drive.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="User name.")]


@app.command()
def add(name: NameArgument, directory: DirOption = None, master: MasterOption = None) -> None:
    """Add a user; the password is asked for, or read from standard input."""
    with open_cluster(directory, master) as cluster:
        users = cluster.rpc.admin("ListUsers", common_pb2.Empty()).users
        if any(user.name == name for user in users):
            raise EntryExistsError(f"there is a user {name!r} already; `helenite user passwd` changes the password")
        cluster.rpc.admin("PutUser", master_pb2.User(name=name, password_hash=PasswordHasher().hash(read_password())))


@app.command()
def passwd(name: NameArgument, directory: DirOption = None, master: MasterOption = None) -> None:
    """Change a user's password; gateways follow within HELENITE_WEBDAV_TRUST_S, a minute unless it is set."""
    with open_cluster(directory, master) as cluster:
        cluster.rpc.admin("GetUser", master_pb2.UserRequest(name=name))
        cluster.rpc.admin("PutUser", master_pb2.User(name=name, password_hash=PasswordHasher().hash(read_password())))


@app.command()
def rm(name: NameArgument, directory: DirOption = None, master: MasterOption = None) -> None:
    """Remove a user; gateways follow within HELENITE_WEBDAV_TRUST_S, a minute unless it is set."""
    with open_cluster(directory, master) as cluster:
        cluster.rpc.admin("RemoveUser", master_pb2.UserRequest(name=name))


@app.command()
def ls(directory: DirOption = None, master: MasterOption = None, as_json: JsonOption = False) -> None:
    """List the users."""
    with open_cluster(directory, master) as cluster:
        users = sorted(user.name for user in cluster.rpc.admin("ListUsers", common_pb2.Empty()).users)
    print(json.dumps(users) if as_json else "\n".join(users) or "no users: loopback is open to everyone here")


def read_password() -> str:
    """Ask twice on a terminal; otherwise the first line of standard input."""
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise InvalidRequestError("the two passwords differ")
    if not password:
        raise InvalidRequestError("an empty password is no password")
    return password
