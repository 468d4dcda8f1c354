#!/usr/bin/env python3
"""A PostgreSQL server for one test: a cluster of its own in a folder of its own, on a Unix socket in it.

postgres.py [--tcp] [--certificate FILE --key FILE] [--only-tls] [--standby] [--set NAME=VALUE]..

Says {"url": .., "folder": ..} on a line of standard output as soon as it answers, and then does what it is told, a word a
line on standard input, and says `ok` after each:

    kill     SIGKILL to all its processes, as when the machine's power goes
    start    starts it again, with what is on its disk
    stop     an orderly end
    hang     stops all its processes in mid-work (SIGSTOP); `go` lets them go on
    sql ..   runs statements as the superuser, in no transaction of their own; `in DATABASE ..` does so in a database,
             and `ask DATABASE ..` says what comes of it on a line instead of `ok`

It ends, and removes the folder, when standard input ends: whatever becomes of the test, nothing is left.
"""

import argparse
import contextlib
import glob
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

DEADLINE_S = 60
PASSWORD = "correct horse battery staple"


def programs():
    """The folder of the newest PostgreSQL here."""
    found = [os.path.dirname(path) for path in glob.glob("/usr/lib/postgresql/*/bin/initdb")]
    found.sort(key=lambda path: int(path.split("/")[-2]))
    on_path = shutil.which("initdb")
    if not found and on_path:
        found = [os.path.dirname(os.path.realpath(on_path))]
    if not found:
        sys.exit("PostgreSQL is missing: scripts/setup installs it (apt-get install postgresql)")
    return found[-1]


def account():
    """PostgreSQL refuses to run as root, so root lends it another account."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    sys.exit("there is neither an account `postgres` nor `nobody` to run PostgreSQL as")


class Server:
    def __init__(self, root, name, port, arguments):
        self.root, self.port = root, port
        self.data = root / name
        self.sockets = root / f"{name}-run"
        self.log = root / f"{name}.log"
        self.arguments = arguments
        self.process = None

    def run(self, program, *arguments, input=""):
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "HOME": str(self.root)}
        done = subprocess.run(
            [os.path.join(PROGRAMS, program), *arguments], cwd=self.root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE_S, input=input, **ACCOUNT,
        )
        if done.returncode != 0:
            sys.exit(f"{program}: {done.stdout}")
        return done.stdout

    def folder(self):
        self.sockets.mkdir(mode=0o755)
        if ACCOUNT:
            os.chown(self.sockets, ACCOUNT["user"], ACCOUNT["group"])

    def create(self):
        self.folder()
        self.run("initdb", "--pgdata", self.data, "--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256",
                 "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
        self.start()
        self.sql(f"CREATE ROLE keyreeve LOGIN PASSWORD '{PASSWORD}'")
        self.sql("CREATE DATABASE keyreeve OWNER keyreeve")

    def start(self):
        # What a server that was killed leaves would only be in the way of the check below.
        for left in self.sockets.iterdir():
            left.unlink()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(PROGRAMS, "postgres"), "-D", self.data, "-k", self.sockets, "-p", str(self.port), *self.arguments],
                cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **ACCOUNT,
            )
        until = time.monotonic() + DEADLINE_S
        while subprocess.run([os.path.join(PROGRAMS, "pg_isready"), "-q", "-h", self.sockets, "-p", str(self.port)],
                             stdin=subprocess.DEVNULL, check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > until:
                sys.exit(f"PostgreSQL does not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)

    def family(self):
        """Its processes: the one we started and those it started, which have sessions of their own."""
        children = []
        for status in glob.glob("/proc/[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # The name in parentheses may hold anything; what follows it does not.
                pid, after = status.split("/")[2], pathlib.Path(status).read_text(errors="replace").rpartition(")")[2]
                if after.split()[1] == str(self.process.pid):
                    children.append(int(pid))
        return [self.process.pid, *children]

    def signal(self, number):
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, number):
        if self.process is None or self.process.poll() is not None:
            return
        family = self.family()
        if number == signal.SIGKILL:
            # The first cannot start others while the others die.
            os.kill(self.process.pid, signal.SIGSTOP)
            self.signal(number)
        else:
            os.kill(self.process.pid, number)
        self.process.wait(DEADLINE_S)
        # One that is still dying holds the shared memory, and the next server would not start.
        until = time.monotonic() + DEADLINE_S
        while any(lives(pid) for pid in family) and time.monotonic() < until:
            time.sleep(0.01)

    def sql(self, statement, database="postgres"):
        return self.run("psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-h", self.sockets, "-p", str(self.port), "-U", "postgres",
                        "-d", database, input=statement)


def lives(pid):
    with contextlib.suppress(OSError):
        after = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
        return after.split()[0] not in "ZX"
    return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tcp", action="store_true")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--only-tls", action="store_true")
    parser.add_argument("--standby", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    asked = parser.parse_args()
    # Not under TMPDIR: the path of a Unix socket has little room.
    root = pathlib.Path(tempfile.mkdtemp(prefix="krpg-", dir="/tmp"))
    servers = []
    # Whoever starts this ends it by closing standard input; a signal that is meant for them comes here too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if ACCOUNT:
            os.chown(root, ACCOUNT["user"], ACCOUNT["group"])
        serve(asked, root, servers)
    finally:
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                server.signal(signal.SIGCONT)
            server.end(signal.SIGQUIT)
        shutil.rmtree(root, ignore_errors=True)


def serve(asked, root, servers):
    port = free_port()
    settings = ["listen_addresses=" + ("127.0.0.1" if asked.tcp else ""), "shared_buffers=8MB", "max_connections=60", "max_prepared_transactions=4", *asked.set]
    if asked.certificate:
        for source, name in ((asked.certificate, "server.crt"), (asked.key, "server.key")):
            shutil.copyfile(source, root / name)
            os.chmod(root / name, 0o600)
            if ACCOUNT:
                os.chown(root / name, ACCOUNT["user"], ACCOUNT["group"])
        settings += ["ssl=on", f"ssl_cert_file={root}/server.crt", f"ssl_key_file={root}/server.key"]
    primary = Server(root, "data", port, [part for setting in settings for part in ("-c", setting)])
    servers.append(primary)
    primary.create()
    if asked.only_tls:
        rules = primary.data / "pg_hba.conf"
        rules.write_text(rules.read_text().replace("\nhost ", "\nhostssl "))
        primary.sql("SELECT pg_reload_conf()")
    said = {"folder": str(root), "sockets": str(primary.sockets), "port": port, "password": PASSWORD,
            "url": f"postgres://keyreeve@/keyreeve?host={primary.sockets}&port={port}"}
    if asked.standby:
        standby = Server(root, "standby", free_port(), primary.arguments)
        standby.folder()
        standby.run("pg_basebackup", "--pgdata", standby.data, "-h", primary.sockets, "-p", str(port), "-U", "postgres",
                    "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
        standby.start()
        servers.append(standby)
        said["standby_port"] = standby.port
    print(json.dumps(said), flush=True)
    obey(primary)


def obey(server):
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "kill":
            server.end(signal.SIGKILL)
        elif word == "stop":
            server.end(signal.SIGINT)
        elif word == "start":
            server.start()
        elif word == "hang":
            server.signal(signal.SIGSTOP)
        elif word == "go":
            server.signal(signal.SIGCONT)
        elif word == "sql":
            server.sql(rest)
        elif word == "in":
            database, _, statement = rest.partition(" ")
            server.sql(statement, database)
        elif word == "ask":
            database, _, statement = rest.partition(" ")
            print(server.sql(statement, database).strip().replace("\n", " "), flush=True)
            continue
        else:
            sys.exit(f"no such word: {word}")
        print("ok", flush=True)


PROGRAMS = programs()
ACCOUNT = account()
if __name__ == "__main__":
    main()
