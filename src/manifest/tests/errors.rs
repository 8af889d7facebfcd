//! What is said about text that is no manifest, and about keys and values that have no place in one: every line is `message @ marked text > help`.

use super::check_lines as check;

#[test]
fn text_that_is_not_toml_is_reported_with_what_is_wrong_on_every_line() {
    check("{", &["invalid key-value pair @ { (expected key)"]);
    check(
        concat!("[task.a]\n", "run: 3\n",),
        &["invalid unquoted key @ : (expected letters, numbers, `-`, `_`) > TOML writes `key = value`"],
    );
    check(
        concat!("[task.a]\n", "run = \"x\n", "needs = []\n",),
        &["string is never closed @ run = \"x (expected `\"`)"],
    );
    check(concat!("[task.a\n", "run = 'x'\n",), &["unclosed table @ [task.a (expected `]`)"]);
    check(
        concat!("[task.a]\n", "run = vite build\n", "cache = tru\n",),
        &[
            "string values must be quoted @ vite build > write `\"vite build\"`",
            "`tru` is not a TOML value @ tru > quote it if it is a string: `\"tru\"`; booleans are `true` and `false`",
        ],
    );
    check(
        concat!("[task.a]\n", "foo\n", "[task.b]\n", "bar\n",),
        &["key with no value @ foo (expected `=`)", "key with no value @ bar (expected `=`)"],
    );
    check(
        concat!("[task.a]\n", "run = 'é\u{1}'\n",),
        &[
            "a string holds a control character @ run = 'é > escape it in a string with double quotes: `\"\\t\"`, `\"\\u0007\"`",
        ],
    );
    check(
        concat!("[task.a]\n", "needs = [\n", "  \":b\"\n", "  \":c\"\n", "]\n",),
        &["missing comma between array elements @ \":b\" (expected `,`)"],
    );
    check(concat!("[task.a]\n", "env = { A = 1\n",), &["unclosed inline table @ env = { A = 1 (expected `}`)"]);
    check(concat!("a.b = 1\n", "a = 2\n",), &["key `a` is written twice @ a (again here) > keep one, or merge them"]);
}

#[test]
fn an_array_that_is_never_closed_is_one_error_at_its_bracket() {
    check(
        concat!("[task.a]\n", "needs = [\":b\", \":c\"\n", "\n", "[task.b]\n", "run = 'x'\n", "outputs = []\n",),
        &[
            "array is never closed @ [ (opened here) @ needs = [\":b\", \":c\" (a `]` belongs before the next key or table)",
        ],
    );
    check(
        concat!("[task.a]\n", "needs = [\":b\"\n",),
        &["array is never closed @ [ (opened here) @ needs = [\":b\" (a `]` belongs before the next key or table)"],
    );
}

#[test]
fn what_is_written_twice_is_shown_in_both_places() {
    check(
        concat!("[task.a]\n", "run = 'x'\n", "[task.b]\n", "run = 'x'\n", "[task.a]\n", "run = 'y'\n",),
        &["table `a` is written twice @ a (again here) @ [task.a] (first here) > keep one, or merge them"],
    );
    check(
        concat!("[task.a]\n", "run = 'x'\n", "cache = false\n", "  run = 'y'\n",),
        &["key `run` is written twice @ run (again here) @ run (first here) > keep one, or merge them"],
    );
    check(
        concat!(
            "[task.c]\n",
            "run = 'x'\n",
            "[fetch.c]\n",
            "url = 'https://a/b.txt'\n",
            "sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'\n",
        ),
        &["`c` names a task and a fetch @ c (fetch) @ c (task) > they share one namespace: rename one"],
    );
}

#[test]
fn every_unknown_key_is_reported_at_once_with_the_nearest_that_exists() {
    check(
        concat!("rnu = 'x'\n", "run = 'y'\n", "[tasks.build]\n", "run = 'x'\n", "[zzz]\n",),
        &[
            "`rnu` stands outside of any section @ rnu > its sections are `[workspace]`, `[store]`, `[remote]`, `[package]`, `[template.NAME]`, `[[apply]]`, `[task.NAME]`, `[fetch.NAME]`, `[service.NAME]`, `[image.NAME]`",
            "`run` stands outside of any section @ run > `run` belongs in a task: write it below a `[task.NAME]` line",
            "a manifest has no section `[tasks]` @ tasks > did you mean `[task.NAME]`?",
            "a manifest has no section `[zzz]` @ zzz > its sections are `[workspace]`, `[store]`, `[remote]`, `[package]`, `[template.NAME]`, `[[apply]]`, `[task.NAME]`, `[fetch.NAME]`, `[service.NAME]`, `[image.NAME]`",
        ],
    );
    check(
        concat!(
            "[task.a]\n",
            "run = 'x'\n",
            "ouptuts = []\n",
            "foo = 1\n",
            "resources = { cpus = 1 }\n",
            "[task.a.b]\n",
            "run = 'x'\n",
        ),
        &[
            "`[task.a]` has no key `ouptuts` @ ouptuts > did you mean `outputs`?",
            "`[task.a]` has no key `foo` @ foo > `drystone schema` lists every key",
            "`[task.a.resources]` has no key `cpus` @ cpus > did you mean `cpu`?",
            "`[task.a]` has no key `b` @ b > if it is part of the name, quote it: `[task.\"a.b\"]`",
        ],
    );
    check(
        concat!(
            "[workspace]\n",
            "nmae = 'a'\n",
            "pool = {}\n",
            "[[apply]]\n",
            "to = ['a']\n",
            "tasks = {}\n",
            "when = 1\n",
            "[fetch.x]\n",
            "uri = 'a'\n",
            "[task.y]\n",
            "rnu = 'x'\n",
        ),
        &[
            "`[workspace]` has no key `nmae` @ nmae > did you mean `name`?",
            "`[workspace]` has no key `pool` @ pool > did you mean `pools`?",
            "`[[apply]]` without `tasks` does nothing @ [[apply]] > add `tasks = { test = \"TEMPLATE\" }`",
            "`[[apply]]` has no key `when` @ when > its keys are `to`, `tasks`",
            "`[fetch.x]` has no key `uri` @ uri > did you mean `url`?",
            "`[task.y]` has no key `rnu` @ rnu > did you mean `run`?",
        ],
    );
}

#[test]
fn what_a_later_version_brings_is_refused_by_name() {
    check(
        concat!("[gate.x]\n", "[pipeline.x]\n", "[input.x]\n",),
        &[
            "`[gate]` is not supported by this version of drystone @ gate > take it out",
            "`[pipeline]` is not supported by this version of drystone @ pipeline > take it out",
            "`[input]` is not supported by this version of drystone @ input > take it out",
        ],
    );
    check(
        concat!("[task.a]\n", "run = 'x ${items}'\n",),
        &[
            "`${items}` stands for a part of a task, and this one has no `split` @ ${items} > add `split = { items = \"tests/**/test_*.py\" }`",
        ],
    );
    check(
        concat!("[workspace]\n", "[remote]\n", "cache = 's3://x'\n",),
        &[
            "warning: `[remote]` is not used by this version of drystone @ remote > results are kept in the local store only",
        ],
    );
}

#[test]
fn every_value_of_the_wrong_type_is_reported_at_once() {
    check(
        concat!(
            "[task.a]\n",
            "run = 3\n",
            "needs = ':b'\n",
            "outputs = ['a', 3]\n",
            "timeout = 10\n",
            "network = 'yes'\n",
            "retries = -1\n",
            "isolation = 'namespace'\n",
            "env = { PORT = 8080 }\n",
            "resources = { cpu = 'two' }\n",
            "matrix = { node = [20] }\n",
            "cache = 99999999999999999999\n",
        ),
        &[
            "`run` of `[task.a]` must be a string for the shell or an array of words @ 3 (this is an integer)",
            "`needs` of `[task.a]` must be an array @ ':b' (this is a string) > write it in brackets: `[\"…\"]`",
            "a value in `outputs` of `[task.a]` must be a string @ 3 (this is an integer) > write it in quotes",
            "`timeout` of `[task.a]` must be a string @ 10 (this is an integer) > write it in quotes",
            "`network` of `[task.a]` must be `true` or `false` @ 'yes' (this is a string)",
            "`retries` of `[task.a]` must be a whole number from 0 to 4294967295 @ -1",
            "`isolation` of `[task.a]` cannot be `namespace` @ 'namespace' > did you mean `namespaces`?",
            "a value in `env` of `[task.a]` must be a string @ 8080 (this is an integer) > write it in quotes",
            "a value in `resources` of `[task.a]` must be a whole number from 0 to 4294967295 @ 'two' (this is a string)",
            "a value in `matrix` of `[task.a]` must be a string @ 20 (this is an integer) > write it in quotes",
            "`cache` of `[task.a]` must be `true` or `false` @ 99999999999999999999 (this is an integer)",
        ],
    );
    check(
        concat!("[task.a]\n", "run = 'x'\n", "inputs = 'src/**'\n",),
        &[
            "`inputs` cannot be the word `src/**` @ 'src/**' > write a list, `[\"src/**\"]`, `\"package\"` for every file of the package, or `\"traced\"` for what it is seen to read",
        ],
    );
    check(concat!("[task]\n", "a = 3\n",), &["`[task.a]` must be a table @ 3 (this is an integer)"]);
    check(
        concat!("task = 3\n", "workspace = 3\n", "[apply]\n",),
        &[
            "`task` must hold tables with a name @ 3 > write `[task.NAME]`",
            "`[workspace]` must be a table @ 3 (this is an integer)",
            "`apply` must be an array of tables @ apply > write `[[apply]]`",
        ],
    );
    check(
        concat!("[fetch.a]\n", "url = 'https://a/b'\n", "unpack = 'maybe'\n", "sha256 = 3\n",),
        &[
            "`unpack` of `[fetch.a]` must be `true`, `false`, `\"auto\"` or `\"oci\"` @ 'maybe'",
            "`sha256` of `[fetch.a]` must be a string @ 3 (this is an integer) > write it in quotes",
        ],
    );
    check(
        concat!("[task.a]\n", "run = 3\n", "needs = ['build']\n",),
        &[
            "`run` of `[task.a]` must be a string for the shell or an array of words @ 3 (this is an integer)",
            "`build` does not say whose task it is @ 'build' > write `:build` for this package's, `^build` for that of the packages it depends on",
        ],
    );
}

#[test]
fn sections_of_the_root_manifest_are_refused_elsewhere() {
    check(
        concat!(
            "[store]\n",
            "[remote]\n",
            "cache = 'x'\n",
            "[template.a]\n",
            "run = 'x'\n",
            "[[apply]]\n",
            "to = ['x']\n",
            "tasks = { a = 'a' }\n",
        ),
        &[
            "`[store]` belongs in the root manifest @ store > move it into the `drystone.toml` that has `[workspace]`",
            "`[remote]` belongs in the root manifest @ remote > move it into the `drystone.toml` that has `[workspace]`",
            "warning: `[remote]` is not used by this version of drystone @ remote > results are kept in the local store only",
            "`[template.NAME]` belongs in the root manifest @ template > move it into the `drystone.toml` that has `[workspace]`",
            "`[[apply]]` belongs in the root manifest @ apply > move it into the `drystone.toml` that has `[workspace]`",
        ],
    );
}

#[test]
fn the_workspace_is_checked_as_a_whole() {
    check(
        concat!(
            "[workspace]\n",
            "name = ' '\n",
            "packages = ['../x', 'libs/*', 'a[']\n",
            "package-graph = ['cargo', 'pnpm']\n",
            "system = 'all'\n",
            "pools = { 'a b' = 1, db = 0 }\n",
            "[store]\n",
            "max-size = '20 gigs'\n",
        ),
        &[
            "` ` is not a name @ ' ' > write at least one visible character, all on one line",
            "a value in `package-graph` of `[workspace]` cannot be `pnpm` @ 'pnpm' > did you mean `npm`?",
            "`system` of `[workspace]` cannot be `all` @ 'all' > it is one of `packages`, `tools`",
            "`../x` is not a pattern of directories: the path leaves its directory through `..` @ '../x' > write directories relative to the root: `libs/*`",
            "`a[` is not a pattern of directories: unclosed character class; missing ']' @ 'a[' > write directories relative to the root: `libs/*`",
            "`a b` cannot name a pool @ 'a b' > a name is letters, digits, `.`, `_` and `-`, and starts with a letter, a digit or `_`",
            "pool `db` has no units, so its tasks could never run @ 0 > write 1 or more",
            "`20 gigs` is not a size @ '20 gigs' > write a number with its unit: `512MiB`, `2GiB`, `1.5GB`",
        ],
    );
    check(
        concat!(
            "[workspace]\n",
            "[package]\n",
            "name = ''\n",
            "depends = ['libs/ui', '//libs/ui:build', '//ok', '//../x']\n",
            "[[apply]]\n",
            "[[apply]]\n",
            "to = ['/x']\n",
            "tasks = { t = 'nope', 'a b' = 'nope' }\n",
        ),
        &[
            "`` is not a name @ '' > write at least one visible character, all on one line",
            "`libs/ui` in `depends` is not a package @ 'libs/ui' > name the package's directory from the root: `//libs/ui`",
            "`//libs/ui:build` in `depends` is not a package @ '//libs/ui:build' > name the package's directory from the root: `//libs/ui`",
            "`//../x` in `depends` is not a package @ '//../x' > name the package's directory from the root: `//libs/ui`",
            "`[[apply]]` without `to` does nothing @ [[apply]] > add `to = [\"libs/*\"]`",
            "`[[apply]]` without `tasks` does nothing @ [[apply]] > add `tasks = { test = \"TEMPLATE\" }`",
            "`a b` cannot name a task @ 'a b' > a name is letters, digits, `.`, `_` and `-`, at most 128 of them, and starts with a letter, a digit or `_`",
            "`/x` is not a pattern of directories: the path is absolute @ '/x' > write directories relative to the root: `libs/*`",
            "there is no template `nope` @ 'nope' > declare `[template.nope]` in the root manifest",
            "there is no template `nope` @ 'nope' > declare `[template.nope]` in the root manifest",
        ],
    );
}
