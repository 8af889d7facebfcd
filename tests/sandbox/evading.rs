//! That a command cannot read past its observer by where it keeps a path, how it names a program, or what it leaves running.

use drystone::sandbox::spec::{Exit, System, Touch, View};

use crate::observing::{compiled, furnished, observe, python, saw};
use crate::world::{argv, file_view, namespaces, rel, sh, with};

#[test]
fn a_path_in_memory_that_only_the_kernel_can_read_is_a_gap() {
    let Some(world) = namespaces() else { return };
    let text = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <string.h>
        #include <sys/mman.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(int count, char **words) {
            char *page;
            if (words[1][0] == 'h') {
                page = mmap(0, 4096, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                page[0] = 0;
                return syscall(437, AT_FDCWD, "src/a.txt", page, 24) < 0 ? 0 : write(1, "opened", 6) != 6;
            }
            if (words[1][0] == 'w') {
                page = mmap(0, 4096, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            } else {
                int secret = syscall(447, 0);
                if (secret < 0 || ftruncate(secret, 4096)) return 0;
                page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, secret, 0);
            }
            strcpy(page, "src/a.txt");
            /* Where this cannot be opened there is nothing to be seen. */
            return open(page, O_RDONLY) < 0 ? 0 : write(1, "opened", 6) != 6;
        }"#;
    let Some(program) = compiled(&world, "hidden", &[], text) else { return };
    for kind in ["write-only", "secret", "how-to-open"] {
        let mut spec = furnished(&world, argv(&["/workspace/program", kind]));
        spec.view.insert(rel("program"), program.clone());
        spec.observe = true;
        let ran = world.run(spec);
        assert_eq!(ran.finished.exit, Exit::Code(0), "{}", ran.stderr);
        let seen = ran.finished.observation.expect("it was to be observed");
        let is_told = seen.gap.as_deref().is_some_and(|gap| gap.contains("memory that nobody else can read"));
        assert!(ran.stdout.is_empty() || is_told, "{kind}: {seen:?}");
    }
}

#[test]
fn the_interpreter_of_a_program_without_a_name_is_seen() {
    let Some(world) = namespaces() else { return };
    for execute in ["os.execve(program, ['x'], {})", "os.execve('/proc/self/fd/%d' % program, ['x'], {})"] {
        let script = format!(
            "
import os
program = os.memfd_create('x', 0)
os.write(program, b'#!/workspace/bin/interpreter\\n')
{execute}"
        );
        let Some(spec) = python(&script) else { return };
        let Some(program) = compiled(&world, "interpreter", &[], "int main(void) { return 0; }") else { return };
        let seen = observe(&world, with(spec, &[("bin/interpreter", program)]));
        saw(&seen, &[("bin/interpreter", Touch::EXECUTED)]);
    }
}

#[test]
fn sockets_that_are_named_by_paths_are_seen() {
    let Some(world) = namespaces() else { return };
    let script = "
import socket
for name in ['src/a.txt', 'none', '\\0abstract']:
    try:
        socket.socket(socket.AF_UNIX).connect(name)
    except OSError:
        pass
socket.socket(socket.AF_UNIX).bind('made')
try:
    socket.socket().connect(('127.0.0.1', 1))
except OSError:
    pass";
    let Some(spec) = python(script) else { return };
    let absent = Touch::LOOKED.and(Touch::ABSENT);
    let made = Touch::WRITTEN.and(Touch::ABSENT);
    let found = Touch::LOOKED.and(Touch::FOUND);
    saw(&observe(&world, furnished(&world, spec)), &[("src/a.txt", found), ("none", absent), ("made", made)]);
}

#[test]
fn links_of_a_root_that_lead_into_the_workspace_are_followed() {
    let Some(world) = namespaces() else { return };
    let text = "#include <fcntl.h>\nint main(void) { return open(\"/usr/share/way\", O_RDONLY) < 0 || \
                open(\"/etc/ways/a.txt\", O_RDONLY) < 0 || open(\"/usr/share/none\", O_RDONLY) >= 0; }";
    let Some(program) = compiled(&world, "reader", &["-static"], text) else { return };
    world.file("root/usr/share/file", "");
    let root = world.file("root/etc/file", "");
    let root = root.parent().and_then(std::path::Path::parent).expect("two levels").to_owned();
    std::os::unix::fs::symlink("/workspace/src/other.txt", root.join("usr/share/way")).expect("a link");
    std::os::unix::fs::symlink("../workspace/src", root.join("etc/ways")).expect("a link");
    let mut spec = furnished(&world, argv(&["/workspace/program"]));
    spec.view.insert(rel("program"), program);
    spec.system = System::Tree { host: root };
    saw(&observe(&world, spec), &[("src/other.txt", Touch::READ), ("src/a.txt", Touch::READ)]);
}

#[test]
fn what_is_left_running_comes_to_nothing_that_was_not_seen() {
    let Some(world) = namespaces() else { return };
    let host = world.file("inputs/0", "").parent().expect("a directory").to_owned();
    for number in 1..4000 {
        world.file(&format!("inputs/{number}"), "");
    }
    let script = "
import os, time
if os.fork() == 0:
    note = os.open('/workspace/note', os.O_WRONLY | os.O_CREAT)
    for number in range(4000):
        os.close(os.open('/workspace/inputs/%d' % number, os.O_RDONLY))
        os.pwrite(note, b'%4d' % number, 0)
while not os.path.exists('/workspace/note'):
    pass
os._exit(0)";
    let Some(spec) = python(script) else { return };
    let mut spec = with(spec, &[("inputs", View::Dir { host }), ("other", file_view(world.file("other", "")))]);
    spec.observe = true;
    let ran = world.run(spec);
    let note = std::fs::read_to_string(ran.finished.workspace.path().join("note")).expect("it was written");
    let seen = ran.finished.observation.as_ref().expect("it was to be observed");
    for number in 0..=note.trim().parse().unwrap_or(0) {
        let path = rel(&format!("inputs/{number}"));
        assert!(note.is_empty() || seen.paths.contains_key(&path), "{path} was read unseen, of {note}");
    }
}

#[test]
fn what_is_renamed_or_removed_is_told_as_such() {
    let Some(world) = namespaces() else { return };
    let seen = observe(&world, furnished(&world, sh("mkdir a; mv a b; rmdir b; mv src away; cat away/a.txt")));
    let moved = Touch::MOVED.and(Touch::WRITTEN);
    saw(&seen, &[("a", moved), ("b", moved.and(Touch::LISTED)), ("src", moved), ("away/a.txt", Touch::READ)]);
}
