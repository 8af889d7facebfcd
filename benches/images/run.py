#!/usr/bin/env python3
"""Times images side by side: drystone, `buildah bud`, `podman build`; pushes beside `skopeo copy`; compressors by throughput.

    python3 benches/images/run.py [--drystone PROGRAM] [--rounds N] [--megabytes N] [--only WORD]

Standard library only. Needs root, and on Debian: buildah podman runc docker-registry skopeo. What is missing is left out and told.
Rounds are interleaved: every contender once, then every contender again; a table has the median and the range. Everything is made in a
temporary directory and goes with it; the registry listens on a free port of this machine.
"""

import argparse
import hashlib
import os
import pathlib
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

BASE = "scratch"
# Shares of the fixture in three layers: what is large and seldom changes, libraries, the application.
LAYERS = {"data": 0.70, "lib": 0.25, "app": 0.05}


def loudly(text):
    print(f"!!! NOT MEASURED: {text}", file=sys.stderr)


def write_fixture(root, megabytes):
    """Files as an application has them: half text, half what compresses badly. The same bytes for the same size."""
    words = random.Random(7)
    vocabulary = ["".join(words.choices("abcdefghijklmnopqrstuvwxyz", k=words.randint(3, 9))) for _ in range(4000)]
    for layer, share in LAYERS.items():
        left, number = int(share * megabytes * 1e6), 0
        while left > 0:
            size = min(left, words.choice([2_000, 20_000, 200_000, 2_000_000]))
            if words.random() < 0.5:
                content = " ".join(words.choices(vocabulary, k=size // 7)).encode()
            else:
                content = words.randbytes(size // 2) + bytes(size // 2)
            path = root / layer / f"{number % 40:02}" / f"file-{number:05}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            left -= max(len(content), 1)
            number += 1
    (root / "drystone.toml").write_text(
        '[workspace]\nname = "bench"\n\n[image.web]\nlayers = [\n'
        + "".join(f'  {{ files = ["{name}/**"], path = "{name}", to = "/srv/{name}" }},\n' for name in LAYERS)
        + ']\ncmd = ["/srv/app/run"]\n'
    )
    (root / "Containerfile").write_text(
        f"FROM {BASE}\n" + "".join(f"COPY {name} /srv/{name}\n" for name in LAYERS) + 'CMD ["/srv/app/run"]\n'
    )
    # So that the layouts of drystone are no part of what the others read.
    (root / ".containerignore").write_text("*.oci\n")


def touch_one(root, token):
    """Changes one small file of the last layer."""
    (root / "app" / "00" / "file-00000").write_text(f"changed: {token}\n")


class Contender:
    """One way to build: how to begin from nothing, and the command."""

    def __init__(self, name, dir):
        self.name, self.dir = name, pathlib.Path(dir)
        self.dir.mkdir()
        self.env = dict(os.environ)

    def forget(self):
        """Away with all it knows."""

    def build(self, root):
        raise NotImplementedError

    def timed(self, root):
        started = time.perf_counter()
        self.build(root)
        return time.perf_counter() - started

    def call(self, argv, root):
        done = subprocess.run(argv, cwd=root, env=self.env, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stderr.decode(errors='replace')[-2000:]}")
        return done.stdout


class Drystone(Contender):
    def __init__(self, program, dir):
        super().__init__("drystone", dir)
        self.program = program
        self.env["DRYSTONE_STORE"] = str(self.dir / "store")

    def forget(self):
        shutil.rmtree(self.dir / "store", ignore_errors=True)

    def build(self, root):
        self.call([self.program, "image", "build"], root)


class Buildah(Contender):
    """`buildah bud` or `podman build` with layers kept, storage of its own, and one time for all files."""

    def __init__(self, program, dir):
        super().__init__(f"{program} {'bud' if program == 'buildah' else 'build'}", dir)
        self.program = program
        (self.dir / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{self.dir}/run"\ngraphroot = "{self.dir}/graph"\n'
        )
        (self.dir / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\nnetns = "none"\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        self.env["CONTAINERS_STORAGE_CONF"] = str(self.dir / "storage.conf")
        self.env["CONTAINERS_CONF"] = str(self.dir / "containers.conf")

    def forget(self):
        if (self.dir / "graph").exists():
            subprocess.run([self.program, "rmi", "--all", "--force"], env=self.env, capture_output=True)

    def build(self, root):
        word = "bud" if self.program == "buildah" else "build"
        argv = [self.program, word, "--layers", "--isolation", "chroot", "--timestamp", "0", "-t", "web", "-f", "Containerfile", "."]
        self.call(argv, root)

    def export(self, root, to):
        """As an OCI layout with compressed layers, which is what drystone's build ends with."""
        self.call(["buildah", "push", "-q", "web", f"oci:{to}:web"], root)


class Registry:
    """Debian's registry on a free port; ends with the block."""

    def __init__(self, dir):
        self.dir = pathlib.Path(dir)

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host = "127.0.0.1:%d" % probe.getsockname()[1]
        self.dir.mkdir()
        config = self.dir / "registry.yml"
        config.write_text(
            "version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage:\n"
            f"  filesystem: {{rootdirectory: {self.dir}/data}}\n  delete: {{enabled: true}}\nhttp: {{addr: '{self.host}'}}\n"
        )
        self.process = subprocess.Popen(
            ["docker-registry", "serve", config], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for line in self.process.stderr:
            if "listening on" in line:
                # What it says later is taken off its hands, or it would wait for somebody to do so.
                threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()
                return self
        sys.exit("the registry does not listen")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def row(name, times):
    middle = statistics.median(times)
    return f"| {name} | {middle:.3f} s | {min(times):.3f} – {max(times):.3f} | {len(times)} |"


def table(title, results):
    print(f"\n### {title}\n\n| what | median | range | rounds |\n|---|---|---|---|")
    for name, times in results.items():
        print(row(name, times))
    sys.stdout.flush()


def builds(contenders, place, rounds, megabytes):
    roots = {}
    for contender in contenders:
        roots[contender] = place / f"tree of {contender.name}".replace(" ", "-")
        write_fixture(roots[contender], megabytes)
    for title, begin in [
        ("Build: nothing is known", "forget"),
        ("Rebuild: nothing changed", None),
        ("Rebuild: one small file of the smallest layer changed", "touch"),
    ]:
        results = {contender.name: [] for contender in contenders}
        for number in range(rounds):
            for contender in contenders:
                root = roots[contender]
                if begin == "forget":
                    contender.forget()
                elif begin == "touch":
                    touch_one(root, f"{number} of {rounds}")
                results[contender.name].append(contender.timed(root))
        table(title, results)
    exporting = [contender for contender in contenders if isinstance(contender, Buildah) and shutil.which("buildah")]
    results = {}
    for number in range(rounds if exporting else 0):
        for contender in exporting:
            started = time.perf_counter()
            contender.export(roots[contender], place / f"exported-{contender.program}-{number}")
            results.setdefault(f"export of {contender.name}'s image as a layout", []).append(time.perf_counter() - started)
    if results:
        table("What the others do not do when they build: layers as they are sent", results)


def pushes(drystone, place, rounds, megabytes):
    if not all(map(shutil.which, ["docker-registry", "skopeo"])):
        return loudly("pushes: docker-registry and skopeo are not installed")
    root = place / "tree of pushes"
    write_fixture(root, megabytes)
    drystone.build(root)

    def by_drystone(where):
        drystone.call([drystone.program, "image", "push", "web", "--to", where], root)

    def by_skopeo(where):
        argv = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--preserve-digests", "oci:web.oci:web"]
        drystone.call([*argv, f"docker://{where}"], root)

    ways = {"drystone image push": ("a/web", by_drystone), "skopeo copy": ("b/web", by_skopeo)}

    def timed(push, where):
        started = time.perf_counter()
        push(where)
        return time.perf_counter() - started

    results = {name: [] for name in ways}
    for number in range(rounds):
        for name, (where, push) in ways.items():
            # A registry of its own each time: both remember which repositories of a host have a layer, and send nothing then.
            with Registry(place / f"registry-{number}-{name.split()[0]}") as registry:
                results[name].append(timed(push, f"{registry.host}/{where}:1"))
    table("Push: into a registry that has nothing", results)
    with Registry(place / "registry") as registry:
        for title, change in [
            ("Push: into another repository of the same registry", "other"),
            ("Push: it is there", None),
            ("Push: one layer changed", "touch"),
        ]:
            results = {name: [] for name in ways}
            for number in range(rounds):
                for name, (where, push) in ways.items():
                    where = f"{registry.host}/{where}"
                    if number == 0 and change == "other":
                        push(f"{where}:1")
                    if change == "touch":
                        touch_one(root, f"{number} for {name}")
                        drystone.build(root)
                    place_in = f"{where}-{number}:1" if change == "other" else f"{where}:1"
                    results[name].append(timed(push, place_in))
            table(title, results)


def compressors(drystone, place, rounds, megabytes):
    """One layer of everything: what a build costs above one that does not compress is the compressor."""
    root = place / "tree of compressors"
    write_fixture(root, megabytes)
    bytes_ = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    words = ["none", "gzip", "zstd"]
    times = {word: [] for word in words}
    sizes = {}
    for _ in range(rounds):
        for word in words:
            (root / "drystone.toml").write_text(
                f'[workspace]\nname = "bench"\n[image.web]\ncompression = "{word}"\n'
                'layers = [{ files = ["data/**", "lib/**", "app/**"] }]\n'
            )
            drystone.forget()
            shutil.rmtree(root / "web.oci", ignore_errors=True)
            times[word].append(drystone.timed(root))
            sizes[word] = max(path.stat().st_size for path in (root / "web.oci" / "blobs" / "sha256").iterdir())
    print(f"\n### Compressors: one layer of {bytes_ / 1e6:.0f} MB, all cores\n\n| compression | build | of it the compressor | MB/s | of the size |\n|---|---|---|---|---|")
    plain = statistics.median(times["none"])
    for word in words:
        middle = statistics.median(times[word])
        own = max(middle - plain, 1e-9)
        speed = "" if word == "none" else f"{bytes_ / 1e6 / own:.0f}"
        print(f"| {word} | {middle:.3f} s | {0 if word == 'none' else own:.3f} s | {speed} | {sizes[word] / sizes['none']:.1%} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    parser.add_argument("--drystone", default=f"{target}/release/drystone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=60)
    parser.add_argument("--only", choices=["builds", "pushes", "compressors"])
    args = parser.parse_args()
    program = str(pathlib.Path(args.drystone).resolve())
    if not os.access(program, os.X_OK):
        sys.exit(f"{program} is not there: cargo build --release")
    with tempfile.TemporaryDirectory(prefix="drystone-images-") as dir:
        place = pathlib.Path(dir)
        drystone = Drystone(program, place / "drystone")
        contenders = [drystone]
        for other in ["buildah", "podman"]:
            if shutil.which(other) and os.geteuid() == 0:
                contenders.append(Buildah(other, place / other))
            else:
                loudly(f"{other}: it is not installed, or this is not root")
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"{args.megabytes} MB in {len(LAYERS)} layers, {args.rounds} rounds, {os.cpu_count()} cores, load before: {load}")
        if args.only in (None, "builds"):
            builds(contenders, place, args.rounds, args.megabytes)
        if args.only in (None, "pushes"):
            pushes(drystone, place, args.rounds, args.megabytes)
        if args.only in (None, "compressors"):
            compressors(drystone, place, args.rounds, args.megabytes)
        for contender in contenders:
            contender.forget()
            subprocess.run(["umount", "-q", contender.dir / "graph" / "overlay"], capture_output=True)


if __name__ == "__main__":
    main()
