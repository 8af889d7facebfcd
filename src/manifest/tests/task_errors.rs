//! What is said about the tables of tasks and fetches that are wrong: every line is `message @ marked text > help`.

use super::check_lines as check;

#[test]
fn a_task_without_a_command_is_an_error() {
    check(
        concat!(
            "[task.a]\n",
            "[task.b]\n",
            "run = []\n",
            "[task.c]\n",
            "run = '  '\n",
            "[task.d]\n",
            "run = ['']\n",
            "fix = ''\n",
            "[task.'a b']\n",
            "run = 'x'\n",
        ),
        &[
            "`a b` cannot name a task @ 'a b' > a name is letters, digits, `.`, `_` and `-`, at most 128 of them, and starts with a letter, a digit or `_`",
            "task `a` has no `run` @ a > add `run = \"…\"`, or `extends` a template that has it",
            "`run` is empty @ [] > write a command: a string for the shell, or an array whose first word is the program",
            "`run` is empty @ '  ' > write a command: a string for the shell, or an array whose first word is the program",
            "`run` is empty @ [''] > write a command: a string for the shell, or an array whose first word is the program",
            "`fix` is empty @ '' > write a command: a string for the shell, or an array whose first word is the program",
        ],
    );
}

#[test]
fn variables_have_one_source_and_a_name() {
    check(
        concat!(
            "[task.a]\n",
            "run = 'x'\n",
            "env = { 'A=B' = '1', A = '1', B = '${HOME}' }\n",
            "pass-env = ['A', 'C=1', 'D']\n",
            "secret-env = ['', 'D']\n",
        ),
        &[
            "`A=B` cannot name an environment variable @ 'A=B' > a name is not empty and holds no `=` and no NUL byte",
            "nothing is called `${HOME}` @ ${HOME} > write `$${HOME}` for the characters themselves > the names are `${package.dir}`, `${package.name}`, `${workspace.name}` and `${matrix.AXIS}`",
            "variable `A` is in `env` and in `pass-env` @ 'A' (here again) @ A (first here) > a variable has one value: take it out of one of them",
            "`C=1` cannot name an environment variable @ 'C=1' > `pass-env` takes names, the value comes from outside; to set it write `env = { C = \"1\" }`",
            "`` cannot name an environment variable @ '' > a name is not empty and holds no `=` and no NUL byte",
            "variable `D` is in `pass-env` and in `secret-env` @ 'D' (here again) @ 'D' (first here) > a variable has one value: take it out of one of them",
        ],
    );
}

#[test]
fn times_sizes_tools_and_tags_are_checked() {
    check(
        concat!(
            "[task.a]\n",
            "run = 'x'\n",
            "timeout = '10'\n",
            "resources = { cpu = 0, memory = 'lots', processes = 7 }\n",
            "tools = ['/usr/bin/node', '//:x#interface', '//x', ':ok']\n",
            "tags = ['a b']\n",
            "salt = \"\\u0000\"\n",
        ),
        &[
            "`10` is not a time a task could run @ '10' > write a number with its unit, larger units first: `90s`, `10m`, `1h30m`",
            "a task holds at least one job slot @ 0 > write `cpu = 1` or more",
            "`lots` is not a size @ 'lots' > write a number with its unit: `512MiB`, `2GiB`, `1.5GB`",
            "a task may be limited to 8 to 4000000 processes @ 7 > leave it out for 4096",
            "`/usr/bin/node` is not a tool @ '/usr/bin/node' > name a program as it is on `PATH`, `node`, or a task that makes it, `//:node`",
            "`//:x#interface` is not a tool @ '//:x#interface' > name one task, `//:node`, without `^` and without `#interface`",
            "`//x` names a package, not a task @ '//x' > name the task as well: `//x:TASK`",
            "`a b` cannot be a tag @ 'a b' > a tag is letters, digits, `.`, `_` and `-`, and starts with a letter, a digit or `_`",
            "the string holds a NUL byte @ \"\\u0000\" > no argument, variable or path can hold one: take it out",
        ],
    );
}

#[test]
fn inputs_outside_the_package_are_written_from_the_root() {
    check(
        concat!(
            "[task.a]\n",
            "run = 'x'\n",
            "inputs = ['../shared/x.c', '!../../*.md', '/etc/passwd', '../../../x', '//../x', 'a[', '']\n",
        ),
        &[
            "input `../shared/x.c` leaves its package @ '../shared/x.c' > write it from the root of the workspace: `//apps/shared/x.c`",
            "input `../../*.md` leaves its package @ '!../../*.md' > write it from the root of the workspace: `//*.md`",
            "input `/etc/passwd` leaves its package @ '/etc/passwd' > nothing lies outside the workspace: `//…` is its root; a program is a `tool`, a download a `fetch`",
            "input `../../../x` leaves its package @ '../../../x' > nothing lies outside the workspace: `//…` is its root; a program is a `tool`, a download a `fetch`",
            "input `//../x` leaves its package @ '//../x' > nothing lies outside the workspace: `//…` is its root; a program is a `tool`, a download a `fetch`",
            "`a[` is not a pattern: unclosed character class; missing ']' @ 'a[' > `*` and `?` stay within a name, `**` crosses directories, `{a,b}` and `[ab]` choose",
            "`` is not a pattern: it is empty @ '' > `*` and `?` stay within a name, `**` crosses directories, `{a,b}` and `[ab]` choose",
        ],
    );
}

#[test]
fn outputs_lie_in_their_package() {
    check(
        concat!("[task.a]\n", "run = 'x'\n", "outputs = ['../dist', '/tmp/x', '//dist', '!x', '.', 'a//b']\n",),
        &[
            "output `../dist` is outside its package @ '../dist' > a task writes inside its own package: write a path relative to it, or move the task to the package it writes in",
            "output `/tmp/x` is outside its package @ '/tmp/x' > a task writes inside its own package: write a path relative to it, or move the task to the package it writes in",
            "output `//dist` is outside its package @ '//dist' > a task writes inside its own package: write a path relative to it, or move the task to the package it writes in",
            "output `!x` takes away, which is for inputs @ '!x' > name what is made, not what is not; write `[!]x` for a name that starts with `!`",
            "output `.` is the whole package, sources and all @ '.' > name a directory or a file in it",
            "`a//b` is not a pattern: the path has an empty component or a NUL byte @ 'a//b' > `*` and `?` stay within a name, `**` crosses directories, `{a,b}` and `[ab]` choose",
        ],
    );
    check(
        concat!(
            "[task.a]\n",
            "run = 'x'\n",
            "committed = ['../x']\n",
            "interface = ['/x']\n",
            "on-failure = ['../x']\n",
            "scratch = ['../x']\n",
            "caches = ['../x', '.']\n",
            "reports = { junit = ['../x'], coverage = ['/x'] }\n",
        ),
        &[
            "committed output `../x` is outside its package @ '../x' > a task writes inside its own package: write a path relative to it, or move the task to the package it writes in",
            "interface `/x` is outside its package @ '/x' > a task writes inside its own package: write a path relative to it, or move the task to the package it writes in",
            "`on-failure` pattern `../x` is outside its package @ '../x' > a task writes inside its own package: write a path relative to it, or move the task to the package it writes in",
            "scratch pattern `../x` leaves its package @ '../x' > write it from the root of the workspace: `//apps/x`",
            "cache directory `../x` is outside its package @ '../x' > a task writes inside its own package: write a path relative to it, or move the task to the package it writes in",
            "cache directory `.` is the whole package, sources and all @ '.' > name a directory or a file in it",
            "report `../x` is outside its package @ '../x' > a task writes inside its own package: write a path relative to it, or move the task to the package it writes in",
            "report `/x` is outside its package @ '/x' > a task writes inside its own package: write a path relative to it, or move the task to the package it writes in",
        ],
    );
}

#[test]
fn names_in_strings_come_from_a_closed_list() {
    check(
        concat!(
            "[task.a]\n",
            "run = 'echo ${HOME} ${package.dri} ${matrix.os} ${'\n",
            "outputs = ['${out}']\n",
            "matrix = { node = ['20'] }\n",
        ),
        &[
            "`${` without `}` @ 'echo ${HOME} ${package.dri} ${matrix.os} ${' > write `$${` for the characters themselves",
            "nothing is called `${HOME}` @ ${HOME} > for the shell's variable write `$HOME` or `$${HOME}` > the names are `${package.dir}`, `${package.name}`, `${workspace.name}` and `${matrix.AXIS}`",
            "nothing is called `${package.dri}` @ ${package.dri} > did you mean `${package.dir}`? > the names are `${package.dir}`, `${package.name}`, `${workspace.name}` and `${matrix.AXIS}`",
            "no axis `os` in the `matrix` of this task @ ${matrix.os} > its axes are `node`",
            "`${out}` is not supported by this version of drystone @ ${out} > take it out",
        ],
    );
    check(
        concat!("[task.a]\n", "run = ['x', '${matrix.node}']\n",),
        &["no axis `node` in the `matrix` of this task @ ${matrix.node} > add `matrix = { node = [\"…\"] }`"],
    );
    check(
        concat!("[task.a]\n", "run = \"\"\"\n", "set -u\n", "echo \\\"${WHO}\\\"\n", "\"\"\"\n",),
        &[
            "nothing is called `${WHO}` @ ${WHO} > for the shell's variable write `$WHO` or `$${WHO}` > the names are `${package.dir}`, `${package.name}`, `${workspace.name}` and `${matrix.AXIS}`",
        ],
    );
}

#[test]
fn needs_are_checked_where_they_are_written() {
    check(
        concat!("[task.a]\n", "run = 'x'\n", "needs = ['build', 'libs/ui:build', '//libs/ui', ':b#api', ':ok']\n",),
        &[
            "`build` does not say whose task it is @ 'build' > write `:build` for this package's, `^build` for that of the packages it depends on",
            "`libs/ui:build` does not say where its package is @ 'libs/ui:build' > name packages from the root: `//libs/ui:build`",
            "`//libs/ui` names a package, not a task @ '//libs/ui' > name the task as well: `//libs/ui:TASK`",
            "`#api` is no part of a task @ ':b#api' > the only part is the interface: `:b#interface`",
        ],
    );
}

#[test]
fn a_matrix_has_values_that_fit_a_label() {
    check(
        concat!(
            "[task.a]\n",
            "run = 'x'\n",
            "matrix = { node = ['20', '20', 'a,b', ''], 'o s' = ['x'], empty = [] }\n",
        ),
        &[
            "matrix axis `node` has the value `20` twice @ '20' (again here) > take it out",
            "`a,b` cannot be a matrix value @ 'a,b' > it stands in the task's label: no `[`, `]`, `,`, `=`, `#`, line break or outer space, and not empty",
            "`` cannot be a matrix value @ '' > it stands in the task's label: no `[`, `]`, `,`, `=`, `#`, line break or outer space, and not empty",
            "`o s` cannot name a matrix axis @ 'o s' > a name is letters, digits, `.`, `_` and `-`, and starts with a letter, a digit or `_`",
            "matrix axis `empty` has no values, so there would be no task @ [] > give it at least one value",
        ],
    );
    check(
        concat!("[task.a]\n", "run = '${package.x}'\n", "matrix = { node = ['20', '22'] }\n",),
        &[
            "nothing is called `${package.x}` @ ${package.x} > did you mean `${package.dir}`? > the names are `${package.dir}`, `${package.name}`, `${workspace.name}` and `${matrix.AXIS}`",
        ],
    );
}

#[test]
fn a_template_that_extends_itself_is_reported_once_with_every_step() {
    check(
        concat!(
            "[workspace]\n",
            "[template.a]\n",
            "extends = 'b'\n",
            "[template.b]\n",
            "extends = 'c'\n",
            "[template.c]\n",
            "extends = 'a'\n",
            "[task.x]\n",
            "extends = 'b'\n",
        ),
        &[
            "template `a` extends itself: `a` → `b` → `c` → `a` @ 'b' (`a` extends this) @ 'c' (`b` extends this) @ 'a' (`c` extends this) > take one `extends` out",
        ],
    );
    check(
        concat!("[workspace]\n", "[template.a]\n", "extends = 'a'\n",),
        &["template `a` extends itself: `a` → `a` @ 'a' (`a` extends this) > take one `extends` out"],
    );
}

#[test]
fn a_template_that_does_not_exist_is_an_error_with_the_nearest() {
    check(
        concat!(
            "[workspace]\n",
            "[template.pytest]\n",
            "run = 'x'\n",
            "[task.y]\n",
            "extends = 'pytset'\n",
            "[task.z]\n",
            "extends = 'nothing'\n",
        ),
        &[
            "there is no template `pytset` @ 'pytset' > did you mean `pytest`?",
            "there is no template `nothing` @ 'nothing' > declare `[template.nothing]` in the root manifest",
        ],
    );
}

#[test]
fn an_address_with_a_password_is_refused_and_not_shown() {
    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let told = "an address of fetch `a` holds a name or a password before its `@` @ a > take it out, for what is in an address is stored and \
        shown; what needs a password is fetched by a task with `network = true` and `secret-env`, or beforehand, to a `file://…`";
    for url in [
        "https://me:hush@x.org/y",
        "http://hush@x.org",
        "https://hush@x.org?a",
        "HTTPS://hush@x.org/y",
        "ftp://me:hush@x.org/y",
        "https://me:hush @x.org/y",
    ] {
        check(&format!("[fetch.a]\nurl = '{url}'\nsha256 = '{SUM}'\noutput = 'y'\n"), &[told]);
    }
    for url in ["https://x.org/@scope/y", "https://x.org/y?to=a@b", "https://x.org/y#a@b", "file:///srv/a@b/y"] {
        check(&format!("[fetch.a]\nurl = '{url}'\nsha256 = '{SUM}'\noutput = 'y'\n"), &[]);
    }
}

#[test]
fn a_fetch_says_where_from_and_what_it_expects() {
    check(
        concat!(
            "[fetch.a]\n",
            "[fetch.b]\n",
            "url = 'ftp://x/y'\n",
            "sha256 = 'zz'\n",
            "[fetch.c]\n",
            "url = 'https://x/'\n",
            "urls = ['https://x/y']\n",
            "sha256 = 'a'\n",
            "blake3 = 'b'\n",
        ),
        &[
            "fetch `a` has no `url` @ a > add `url = \"https://…\"`",
            "fetch `a` does not say which bytes it expects @ a > add `sha256 = \"…\"` or `blake3 = \"…\"`",
            "`ftp://x/y` is not an address @ 'ftp://x/y' > write `https://…`, `http://…` or `file://…`, without spaces",
            "`sha256` is not a digest: `z` is no hexadecimal digit @ 'zz' > write 64 hexadecimal digits, as `sha256sum` prints them",
            "fetch `c` has `url` and `urls` @ 'https://x/y' @ 'https://x/' > keep one of them",
            "fetch `c` has `sha256` and `blake3` @ 'b' @ 'a' > keep one of them",
        ],
    );
    check(
        concat!(
            "[fetch.d]\n",
            "url = 'https://x/y.rar'\n",
            "unpack = true\n",
            "executable = true\n",
            "blake3 = 'abc'\n",
            "output = '../x'\n",
            "[fetch.e]\n",
            "url = 'https://x.org'\n",
            "strip = 1\n",
            "sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'\n",
            "[fetch.f]\n",
            "url = 'https://x/y'\n",
            "sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'\n",
            "unpack = 'oci'\n",
            "platform = 'linux'\n",
            "executable = true\n",
            "[fetch.g]\n",
            "url = 'https://x/y'\n",
            "sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'\n",
            "platform = 'linux/amd64'\n",
        ),
        &[
            "no address says by its ending how to unpack the file @ true > the endings are `.tar`, `.tar.gz`, `.tgz`, `.tar.xz`, `.tar.zst`, `.zip`, `.deb`",
            "warning: `executable` has no effect on what is unpacked @ true > take it out",
            "`blake3` is not a digest: it has 3 digits instead of 64 @ 'abc' > write 64 hexadecimal digits, as `b3sum` prints them",
            "output `../x` is outside its package @ '../x' > a task writes inside its own package: write a path relative to it, or move the task to the package it writes in",
            "fetch `e` has an address without a file name @ e > say where it lands: `output = \"…\"`",
            "warning: `strip` has no effect without `unpack = true` @ 1 > take it out",
            "`linux` is no platform @ 'linux' > write `os/architecture` or `os/architecture/variant`, such as `linux/amd64` or `linux/arm/v7`",
            "warning: `executable` has no effect on what is unpacked @ true > take it out",
            "warning: `platform` has no effect without `unpack = \"oci\"` @ 'linux/amd64' > take it out",
        ],
    );
}
