//! What of a service is in its key, and so in the keys of its users.

use serde_json::Value;

use crate::support::TestWorkspace;

const MANIFEST: &str = r#"
[task.made]
run = "echo one > made.txt"
outputs = ["made.txt"]
inputs = []

[task.other-made]
run = "echo one > other.txt"
outputs = ["other.txt"]
inputs = []

[service.below]
run = "echo up; exec tail -f /dev/null"
ready = { log = "up" }
inputs = []
salt = "below"

[service.db]
run = "echo up; exec tail -f /dev/null"
ready = { log = "up" }
timeout = "30s"
stop-signal = "SIGINT"
inputs = ["config.txt"]
needs = [":made"]
services = [":below"]
env = { LEVEL = "1" }
pass-env = ["PASSED"]
secret-env = ["TOKEN"]
tools = ["cat"]
tags = ["slow"]
salt = "one"

[task.test]
run = "true"
services = [":db"]
inputs = []
"#;

#[test]
fn all_that_can_change_what_a_service_does_is_in_the_keys_of_its_users_and_nothing_else() {
    let mut workspace = TestWorkspace::new(MANIFEST);
    workspace.write("config.txt", "port 1\n");
    let manifest = workspace.read("drystone.toml");
    for (name, value) in [("PASSED", "one"), ("TOKEN", "hush-hush"), ("TOKEN2", "hush-hush")] {
        workspace.set(name, value);
    }
    workspace.run(&["run"]).expect(0);
    let keys = |workspace: &TestWorkspace| {
        let told = workspace.run(&["explain", "--format", "json", "//:test"]).expect(0).stdout;
        let told: Value = serde_json::from_str(&told).expect("JSON");
        (told["action"].clone(), told["fingerprint"]["service"]["//:db"].clone())
    };
    let before = keys(&workspace);
    assert!(before.0.is_string() && before.1.is_string(), "{before:?}");
    let is_in = |from: &str, to: &str| {
        assert!(manifest.contains(from), "{from}");
        workspace.write("drystone.toml", &manifest.replace(from, to));
        let after = keys(&workspace);
        workspace.write("drystone.toml", &manifest);
        assert_eq!(
            after.0 == before.0,
            after.1 == before.1,
            "{from} → {to}: the key of the service is in that of its user"
        );
        after != before
    };
    for (from, to) in [
        ("echo up; exec tail", "echo up; : ; exec tail"),
        ("inputs = [\"config.txt\"]", "inputs = []"),
        ("needs = [\":made\"]", "needs = [\":other-made\"]"),
        ("services = [\":below\"]", "services = []"),
        ("salt = \"below\"", "salt = \"deeper\""),
        ("LEVEL = \"1\"", "LEVEL = \"2\""),
        ("pass-env = [\"PASSED\"]", "pass-env = []"),
        ("secret-env = [\"TOKEN\"]", "secret-env = [\"TOKEN2\"]"),
        ("tools = [\"cat\"]", "tools = [\"cat\", \"ls\"]"),
        ("salt = \"one\"", "salt = \"two\""),
        // Everybody must agree on these.
        ("\ninputs = ", "\nnetwork = true\ninputs = "),
        ("\ninputs = ", "\nisolation = \"none\"\ninputs = "),
    ] {
        assert!(is_in(from, to), "{from} → {to} changes no key");
    }
    for (from, to) in [
        ("{ log = \"up\" }", "{ run = \"true\" }"),
        ("timeout = \"30s\"", "timeout = \"40s\""),
        ("stop-signal = \"SIGINT\"", "stop-signal = \"SIGKILL\""),
        ("tags = [\"slow\"]", "tags = []"),
    ] {
        assert!(!is_in(from, to), "{from} → {to} changes a key");
    }
    workspace.write("config.txt", "port 2\n");
    assert_ne!(keys(&workspace), before, "a file it reads");
    workspace.write("config.txt", "port 1\n");
    assert_eq!(keys(&workspace), before);
    workspace.set("TOKEN", "another");
    assert_eq!(keys(&workspace), before, "the value of a secret");
    workspace.set("PASSED", "two");
    assert_ne!(keys(&workspace), before, "the value of a variable");
}
