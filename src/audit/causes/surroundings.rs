//! Causes around a command: clock, names, places, processors, memory, order. Finds none itself.

use super::{Cause, causes};

causes! {
    SURROUNDINGS:
    TIMESTAMP_EMBEDDED = "timestamp.embedded", "a time of the build in the content",
        "take the time from `SOURCE_DATE_EPOCH` (TeX: with `FORCE_SOURCE_DATE=1`), or leave it out";
    TIME_ZONE = "time-zone", "a time told in the zone of the machine",
        "set `TZ=UTC` in the environment of the task, or format times in UTC";
    BUILD_PATH = "build-path", "the directory that it was built in",
        "map the path away (`-ffile-prefix-map`, `--remap-path-prefix`, `-trimpath`), or write relative paths";
    HOME = "home", "the home directory",
        "write no path below `HOME` into outputs; map it away like the build path";
    OWNER = "owner", "the user or group that built it",
        "write owner 0:0 without names (`--owner=0 --group=0 --numeric-owner`), and no name of a user into files";
    HOST_NAME = "host-name", "the name of the machine",
        "leave the host name out of the output, or set a fixed one in the tool that asks for it";
    LOCALE = "locale", "language or order of letters of the machine",
        "set `LC_ALL=C.UTF-8` in the environment of the task, and sort by bytes";
    MODE = "umask", "permission bits that come from the umask",
        "set the modes of outputs (`install -m 0644`, `chmod`), or `umask 022` at the start of the command";
    ENVIRONMENT = "environment", "variables of the environment that nobody declared",
        "write only named variables into outputs, sorted, and declare each in `env` of the task";
    EXEC_PATH = "exec-path", "the search path for programs",
        "write no `PATH` into outputs; call tools by name and record their versions instead";
    KERNEL = "kernel", "release or name of the kernel",
        "do not ask `uname` in the build; pass what is built for as a parameter";
    CPU_COUNT = "cpu-count", "the number of processors",
        "give a fixed number of jobs, and sort what parallel workers bring before it is written";
    CPU_FEATURES = "cpu-features", "code made for the processor of the machine",
        "name the processor that is built for (`-march=x86-64-v2`, never `native`), and build without measured profiles, or with checked-in ones";
    FILE_ORDER = "file-order", "files in the order in which the directory lists them",
        "sort the list of files by bytes (`LC_ALL=C sort`, `tar --sort=name`) before it is used";
    FILE_SYSTEM = "file-system", "what the file system tells: sizes of directories, blocks, times",
        "write no sizes of directories, counts of blocks or links, or times of files into outputs";
    RACE = "race", "steps that run at once and whose order shows",
        "add the missing dependency between the steps, or collect their results and sort them before writing";
    RANDOMNESS = "randomness", "random bytes: identifiers, keys, names of temporary files",
        "derive identifiers from a digest of the inputs, and make no keys in a build";
    HASH_SEED = "hash-seed", "the order of a hash table",
        "sort before writing, or use ordered maps; `PYTHONHASHSEED=0` and `PERL_HASH_SEED=0` only hide it";
    ADDRESS = "address", "addresses or memory that was never set",
        "set all bytes of what is written, and print no addresses; order by name, not by pointer";
    PID = "pid", "the number of a process",
        "give temporary files and headers fixed names (`--pax-option=exthdr.name=%d/PaxHeaders/%f` for tar)";
    INODE = "inode", "numbers of files, devices or links of the file system",
        "delete caches that hold inode numbers (`/var/cache/ldconfig/aux-cache`), and write none into outputs";
    LINE_ORDER = "line-order", "the same lines in another order",
        "sort the lines by bytes before they are written";
    JSON_ORDER = "json-order", "the same document with its fields in another order",
        "write documents with sorted keys (`sort_keys=True`, `jq -S`, ordered maps)";
}
