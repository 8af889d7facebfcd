//! What engine, launcher and init say to each other, as bytes and descriptors. Knows nothing of what is done with it.
//!
//! The sockets keep message boundaries (`SOCK_SEQPACKET`). The job, which may be long, travels as an anonymous file.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use rustix::process::Signal;

use crate::base::encode::{DecodeError, Decoder, Encoder};
use crate::base::path::RelPath;
use crate::process::usage::Usage;
use crate::sandbox::owned::{decode_owners, encode_owners};
use crate::sandbox::spec::{
    Access, Content, Layers, Level, Limits, Mount, Network, SandboxSpec, System, View, WritableRoot,
};
use crate::sandbox::surroundings::Surroundings;

/// Most descriptors in one message: job, standard output, standard error, control, checks, the two of a pod, and two groups.
pub const DESCRIPTORS_MAX: usize = 9;

/// What the engine writes to a control socket when all is to be killed at once. To be stopped in order, it closes it.
pub const KILL: &[u8] = b"kill";

/// Longest message, in bytes; longer texts are cut.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Longest text in a report, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// The step that fails where user namespaces are forbidden.
pub const NAMESPACES_STEP: &str = "creating its namespaces";

/// The user and group the launcher runs as; inits no longer see them once they are in a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What the init is to do once the view is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Run the command.
    Run,
    /// Nothing: whether the view can be built was the question.
    Probe,
    /// The launcher itself answers: whether it lives is the question.
    Answer,
    /// Make a pod; its namespaces come with the report.
    Pod,
}

/// Which descriptors follow the four that every command has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Company {
    /// A socket for what is asked about the command while it runs.
    pub checks: bool,
    /// The user and the net namespace of the pod it joins.
    pub pod: bool,
    /// How many control groups it joins, two at most.
    pub groups: u8,
    /// Whether the init counts processes: no group does.
    pub crowd: bool,
    /// Whether the launcher is in the control group of the command, and so whoever it starts.
    pub berth: bool,
}

/// What the launcher must know before it forks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which sandbox.
    pub level: Level,
    /// Whether the network namespace is a new one.
    pub network: Network,
    /// Run, probe, answer or make a pod.
    pub purpose: Purpose,
    /// What comes along.
    pub company: Company,
}

impl Request {
    /// Asks for nothing but this, with a control socket alone.
    pub fn bare(level: Level, purpose: Purpose) -> Self {
        Self { level, network: Network::Loopback, purpose, company: Company::default() }
    }

    /// Four bytes.
    pub fn encode(self) -> [u8; 4] {
        let level = match self.level {
            Level::None => 0,
            Level::Landlock => 1,
            Level::Namespaces => 2,
        };
        let purpose = match self.purpose {
            Purpose::Run => 0,
            Purpose::Probe => 1,
            Purpose::Answer => 2,
            Purpose::Pod => 3,
        };
        let Company { checks, pod, groups, crowd, berth } = self.company;
        let company = u8::from(checks) | u8::from(pod) << 1 | u8::from(crowd) << 2 | u8::from(berth) << 3 | groups << 4;
        [level, network_number(self.network), purpose, company]
    }

    /// Reads them back.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let level = match decoder.u8()? {
            0 => Level::None,
            1 => Level::Landlock,
            2 => Level::Namespaces,
            _ => return Err(DecodeError::Invalid { what: "level" }),
        };
        let network = network_of(decoder.u8()?)?;
        let purpose = match decoder.u8()? {
            0 => Purpose::Run,
            1 => Purpose::Probe,
            2 => Purpose::Answer,
            3 => Purpose::Pod,
            _ => return Err(DecodeError::Invalid { what: "purpose" }),
        };
        let company = decoder.u8()?;
        decoder.finish()?;
        let company = Company {
            checks: company & 1 != 0,
            pod: company & 2 != 0,
            crowd: company & 4 != 0,
            berth: company & 8 != 0,
            groups: company >> 4,
        };
        Ok(Self { level, network, purpose, company })
    }
}

fn network_number(network: Network) -> u8 {
    match network {
        Network::Loopback => 0,
        Network::Host => 1,
        Network::Pod => 2,
    }
}

fn network_of(number: u8) -> Result<Network, DecodeError> {
    match number {
        0 => Ok(Network::Loopback),
        1 => Ok(Network::Host),
        2 => Ok(Network::Pod),
        _ => Err(DecodeError::Invalid { what: "network" }),
    }
}

/// How the command itself ended; why it was stopped is the engine's to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It exited.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// A step of building the sandbox that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What was being done, with the path: `mounting a tmpfs on …`.
    pub step: String,
    /// What the system said.
    pub cause: String,
    /// Its error number; 0 if it is not one.
    pub errno: i32,
}

impl Failure {
    /// From a system error.
    pub fn new(step: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        Self { step: step.into(), cause: plain(&error), errno: error.raw_os_error().unwrap_or(0) }
    }

    /// From something else than a system error.
    pub fn said(step: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { step: step.into(), cause: cause.into(), errno: 0 }
    }
}

/// The system's words without the error number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// What comes along with a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aside {
    /// Nothing.
    Nothing,
    /// What was observed.
    Observation,
    /// Whose the files of the root are.
    Owned,
}

/// The last thing an init says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// The command ended and everything it started is gone. In a namespace the workspace's descriptor comes along.
    Ended {
        /// How.
        status: Status,
        /// What all of it used.
        usage: Usage,
        /// What comes along as an anonymous file, after the workspace.
        aside: Aside,
        /// Whether the init counted too many processes, and killed them.
        crowded: bool,
    },
    /// The program could not be executed.
    CannotStart {
        /// Why, and where it was looked for.
        cause: String,
    },
    /// The view could not be built.
    Failed(Failure),
}

impl Report {
    /// That something ended that used nothing worth telling.
    pub fn nothing_of(status: Status) -> Self {
        Report::Ended { status, usage: Usage::default(), aside: Aside::Nothing, crowded: false }
    }

    /// As one message.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        match self {
            Report::Ended { status, usage, aside, crowded } => {
                let (kind, number) = match *status {
                    Status::Code(code) => (0, code),
                    Status::Signal(signal) => (1, signal),
                };
                encoder.u8(0).u8(kind).u64(u64::from(number.cast_unsigned())).u64(usage.cpu_ms).u64(usage.max_rss_kib);
                encoder.u8(*aside as u8).u8(u8::from(*crowded));
            }
            Report::CannotStart { cause } => {
                encoder.u8(1).bytes(cut(cause).as_bytes());
            }
            Report::Failed(Failure { step, cause, errno }) => {
                let errno = u64::from(errno.cast_unsigned());
                encoder.u8(2).bytes(cut(step).as_bytes()).bytes(cut(cause).as_bytes()).u64(errno);
            }
        }
        encoder.into_vec()
    }

    /// Reads it back.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        fn number(decoder: &mut Decoder<'_>) -> Result<i32, DecodeError> {
            let number = u32::try_from(decoder.u64()?).map_err(|_| DecodeError::Invalid { what: "number" })?;
            Ok(number.cast_signed())
        }
        let mut decoder = Decoder::new(bytes);
        let report = match decoder.u8()? {
            0 => {
                let signalled = decoder.u8()? == 1;
                let number = number(&mut decoder)?;
                let status = if signalled { Status::Signal(number) } else { Status::Code(number) };
                let usage = Usage { cpu_ms: decoder.u64()?, max_rss_kib: decoder.u64()? };
                let aside = match decoder.u8()? {
                    0 => Aside::Nothing,
                    1 => Aside::Observation,
                    2 => Aside::Owned,
                    _ => return Err(DecodeError::Invalid { what: "report" }),
                };
                Report::Ended { status, usage, aside, crowded: decoder.u8()? == 1 }
            }
            1 => Report::CannotStart { cause: decoder.text("cause")?.to_owned() },
            2 => {
                let step = decoder.text("step")?.to_owned();
                let cause = decoder.text("cause")?.to_owned();
                Report::Failed(Failure { step, cause, errno: number(&mut decoder)? })
            }
            _ => return Err(DecodeError::Invalid { what: "report" }),
        };
        decoder.finish()?;
        Ok(report)
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// Writes a job; the timeout stays with the engine.
pub fn encode_spec(spec: &SandboxSpec) -> Vec<u8> {
    fn path(encoder: &mut Encoder, path: &Path) {
        encoder.bytes(path.as_os_str().as_bytes());
    }
    fn content_of(encoder: &mut Encoder, content: &Content) {
        match content {
            Content::Bytes(bytes) => encoder.u8(0).bytes(bytes),
            Content::Host(host) => encoder.u8(1).bytes(host.as_os_str().as_bytes()),
        };
    }
    let mut encoder = Encoder::new();
    encoder.u64(spec.argv.len() as u64);
    for argument in &spec.argv {
        encoder.bytes(argument.as_bytes());
    }
    encoder.u64(spec.env.len() as u64);
    for (name, value) in &spec.env {
        encoder.bytes(name.as_bytes()).bytes(value.as_bytes());
    }
    encoder.bytes(spec.cwd.as_str().as_bytes());
    encoder.u64(spec.view.len() as u64);
    for (inside, view) in &spec.view {
        encoder.bytes(inside.as_str().as_bytes());
        match view {
            View::File { content, executable } => content_of(encoder.u8(u8::from(*executable)), content),
            View::Copy { content, executable } => content_of(encoder.u8(if *executable { 6 } else { 5 }), content),
            View::Dir { host } => path(encoder.u8(2), host),
            View::Link { target } => path(encoder.u8(3), Path::new(target)),
            View::Empty => drop(encoder.u8(4)),
        }
    }
    encoder.u64(spec.mtimes.len() as u64);
    for (inside, mtime_ns) in &spec.mtimes {
        encoder.bytes(inside.as_str().as_bytes()).u64(mtime_ns.cast_unsigned());
    }
    match &spec.system {
        System::Nothing { links } => {
            encoder.u8(0).u64(links.len() as u64);
            for (at, target) in links {
                path(&mut encoder, at);
                path(&mut encoder, target);
            }
        }
        System::Host => drop(encoder.u8(1)),
        System::Tree { host } => path(encoder.u8(2), host),
        System::Writable(root) => {
            match &root.layers {
                Layers::Overlay { lower, upper, work } => {
                    encoder.u8(3);
                    [lower, upper, work].into_iter().for_each(|place| path(&mut encoder, place));
                }
                Layers::Copy { root } => path(encoder.u8(4), root),
            }
            encode_owners(&mut encoder, &root.owners);
            encoder.u64(root.modes.len() as u64);
            for (at, mode) in &root.modes {
                encoder.bytes(at.as_str().as_bytes()).u64(u64::from(*mode));
            }
            path(&mut encoder, &root.directory);
        }
    }
    encoder.u64(spec.mounts.len() as u64);
    for mount in &spec.mounts {
        path(&mut encoder, &mount.host);
        path(&mut encoder, &mount.inside);
        encoder.u8(u8::from(mount.access == Access::ReadWrite));
    }
    encoder.u8(network_number(spec.network));
    encoder.u64(u64::from(spec.stop_signal.as_raw().cast_unsigned()));
    path(&mut encoder, &spec.stage);
    encoder.u8(u8::from(spec.observe));
    encoder.u64(spec.limits.processes.into()).u8(u8::from(spec.limits.memory_bytes.is_some()));
    encoder.u64(spec.limits.memory_bytes.unwrap_or(0));
    encoder.u8(u8::from(spec.surroundings.is_some()));
    if let Some(surroundings) = &spec.surroundings {
        surroundings.encode(&mut encoder);
    }
    encoder.into_vec()
}

/// Reads a job back. Contents stay where they are: a copy of each would take an init more page faults than anything else it does.
pub fn decode_spec(bytes: &'static [u8]) -> Result<SandboxSpec, DecodeError> {
    fn path(decoder: &mut Decoder<'_>) -> Result<PathBuf, DecodeError> {
        Ok(PathBuf::from(std::ffi::OsString::from_vec(decoder.bytes()?.to_vec())))
    }
    fn inside(decoder: &mut Decoder<'_>) -> Result<RelPath, DecodeError> {
        RelPath::parse(decoder.text("path")?).map_err(|_| DecodeError::Invalid { what: "path" })
    }
    fn content(decoder: &mut Decoder<'static>) -> Result<Content, DecodeError> {
        match decoder.u8()? {
            0 => Ok(Content::Bytes(decoder.bytes()?.into())),
            1 => Ok(Content::Host(path(decoder)?)),
            _ => Err(DecodeError::Invalid { what: "content" }),
        }
    }
    let mut decoder = Decoder::new(bytes);
    let argv = (0..decoder.u64()?).map(|_| Ok(decoder.text("argument")?.to_owned())).collect::<Result<_, _>>()?;
    let env = (0..decoder.u64()?)
        .map(|_| Ok((decoder.text("variable")?.to_owned(), decoder.text("value")?.to_owned())))
        .collect::<Result<_, _>>()?;
    let cwd = inside(&mut decoder)?;
    let view = (0..decoder.u64()?)
        .map(|_| {
            let inside = inside(&mut decoder)?;
            let kind = decoder.u8()?;
            let view = match kind {
                0 | 1 => View::File { content: content(&mut decoder)?, executable: kind == 1 },
                2 => View::Dir { host: path(&mut decoder)? },
                3 => View::Link { target: decoder.text("link")?.to_owned() },
                4 => View::Empty,
                5 | 6 => View::Copy { content: content(&mut decoder)?, executable: kind == 6 },
                _ => return Err(DecodeError::Invalid { what: "view" }),
            };
            Ok((inside, view))
        })
        .collect::<Result<_, _>>()?;
    let mtimes = (0..decoder.u64()?)
        .map(|_| Ok((inside(&mut decoder)?, decoder.u64()?.cast_signed())))
        .collect::<Result<_, _>>()?;
    let system = match decoder.u8()? {
        0 => {
            let links = (0..decoder.u64()?).map(|_| Ok((path(&mut decoder)?, path(&mut decoder)?)));
            System::Nothing { links: links.collect::<Result<_, _>>()? }
        }
        1 => System::Host,
        2 => System::Tree { host: path(&mut decoder)? },
        kind @ (3 | 4) => {
            let layers = if kind == 3 {
                let (lower, upper, work) = (path(&mut decoder)?, path(&mut decoder)?, path(&mut decoder)?);
                Layers::Overlay { lower, upper, work }
            } else {
                Layers::Copy { root: path(&mut decoder)? }
            };
            let owners = decode_owners(&mut decoder)?;
            let mode = |decoder: &mut Decoder<'_>| {
                u32::try_from(decoder.u64()?).map_err(|_| DecodeError::Invalid { what: "mode" })
            };
            let modes = (0..decoder.u64()?).map(|_| Ok((inside(&mut decoder)?, mode(&mut decoder)?)));
            let modes = modes.collect::<Result<_, _>>()?;
            System::Writable(WritableRoot { layers, modes, owners, directory: path(&mut decoder)? })
        }
        _ => return Err(DecodeError::Invalid { what: "system" }),
    };
    let mounts = (0..decoder.u64()?)
        .map(|_| {
            let (host, inside) = (path(&mut decoder)?, path(&mut decoder)?);
            let access = if decoder.u8()? == 1 { Access::ReadWrite } else { Access::ReadOnly };
            Ok(Mount { host, inside, access })
        })
        .collect::<Result<_, _>>()?;
    let network = network_of(decoder.u8()?)?;
    let stop_signal = i32::try_from(decoder.u64()?).ok().and_then(Signal::from_named_raw);
    let stop_signal = stop_signal.ok_or(DecodeError::Invalid { what: "signal" })?;
    let stage = path(&mut decoder)?;
    let observe = decoder.u8()? == 1;
    let processes = u32::try_from(decoder.u64()?).map_err(|_| DecodeError::Invalid { what: "limit" })?;
    let is_limited = decoder.u8()? == 1;
    let memory_bytes = Some(decoder.u64()?).filter(|_| is_limited);
    let surroundings = if decoder.u8()? == 1 { Some(Box::new(Surroundings::decode(&mut decoder)?)) } else { None };
    decoder.finish()?;
    let (timeout, limits) = (None, Limits { memory_bytes, processes });
    Ok(SandboxSpec {
        argv,
        env,
        cwd,
        view,
        mtimes,
        system,
        mounts,
        network,
        timeout,
        stop_signal,
        stage,
        observe,
        limits,
        surroundings,
    })
}

/// A file in memory that holds these bytes, to be read from its start.
pub fn anonymous_file(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::retry_on_intr(|| rustix::io::pwrite(&file, &bytes[written..], written as u64))?;
    }
    Ok(file)
}

/// What such a file holds.
pub fn read_anonymous_file(file: impl AsFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0)];
    let mut length = 0;
    while length < bytes.len() {
        match rustix::io::retry_on_intr(|| rustix::io::pread(&file, &mut bytes[length..], length as u64))? {
            0 => break,
            count => length += count,
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Sends one message with its descriptors. The receiver being gone is an error, not a signal.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(
        descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors)),
        "BUG: {} descriptors in a message made for {DESCRIPTORS_MAX}",
        descriptors.len()
    );
    let parts = [IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&socket, &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one message with its descriptors, waiting for it; `None` when the other side is gone.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut take = || {
        rustix::io::retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            rustix::net::recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })
    };
    let received = match take() {
        // Unread bytes of ours were dropped with the other side, which is told once and first: what it had sent is still there.
        Err(rustix::io::Errno::CONNRESET) => take(),
        received => received,
    };
    let length = match received {
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::CONNRESET) => 0,
        Err(error) => return Err(error.into()),
    };
    if length == 0 {
        return Ok(None);
    }
    let descriptors = ancillary
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => rights.collect::<Vec<_>>(),
            _ => Vec::new(),
        })
        .collect();
    buffer.truncate(length);
    Ok(Some((buffer, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::spec::Owner;
    use crate::sandbox::surroundings::{DirOrder, Ground, Identity, Occupant};
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn rel(text: &str) -> RelPath {
        RelPath::parse(text).expect("a good path")
    }

    fn spec() -> SandboxSpec {
        SandboxSpec {
            argv: vec!["sh".into(), "-c".into(), String::new()],
            env: BTreeMap::from([("A".into(), "1".into()), ("LANG".into(), "ü".into())]),
            cwd: rel("apps/web"),
            view: BTreeMap::from([
                (rel("a"), View::File { content: Content::Host("/h/a".into()), executable: false }),
                (rel("b"), View::File { content: Content::Bytes(vec![0, 1, 0xff].into()), executable: true }),
                (rel("c"), View::Dir { host: "/h/c".into() }),
                (rel("d"), View::Link { target: "../x".into() }),
                (rel("e"), View::Empty),
                (rel("f"), View::Copy { content: Content::Host("/h/f".into()), executable: true }),
                (rel("g"), View::Copy { content: Content::Bytes(Vec::new().into()), executable: false }),
            ]),
            mtimes: BTreeMap::from([(rel("b"), 7), (rel("d"), -1)]),
            system: System::Host,
            mounts: vec![Mount { host: "/t".into(), inside: "/t".into(), access: Access::ReadWrite }],
            network: Network::Host,
            timeout: None,
            stop_signal: Signal::INT,
            stage: std::ffi::OsString::from_vec(vec![b'/', 0xff]).into(),
            observe: true,
            limits: Limits { memory_bytes: Some(1 << 40), processes: 7 },
            surroundings: Some(Box::new(varied())),
        }
    }

    fn varied() -> Surroundings {
        Surroundings {
            workspace_dir: "/b/ü".into(),
            host_name: "h".into(),
            domain_name: Some("d".into()),
            identity: Some(Identity { user: "u".into(), group: "g".into(), uid: 1, gid: u32::MAX - 1 }),
            umask: 0o77,
            environment_order: DirOrder::Reversed,
            cpus: Some(1),
            dir_order: DirOrder::Reversed,
            clock_ahead: Duration::new(7, 999_999_999),
            clock_stands: true,
            fixed_addresses: true,
            old_kernel: true,
            ground: Ground::Disk,
            occupant: Occupant::Canary,
        }
    }

    #[test]
    fn a_job_arrives_as_it_was_sent() {
        let links = BTreeMap::from([("/bin".into(), "usr/bin".into())]);
        let writable = |layers| {
            let modes = BTreeMap::from([(rel("usr/bin/su"), 0o4755)]);
            let owners = BTreeMap::from([(rel("var/mail"), Owner { user: 0, group: 8 })]);
            System::Writable(WritableRoot { layers, modes, owners, directory: "/srv".into() })
        };
        let systems = [
            System::Host,
            System::Nothing { links },
            System::Tree { host: "/r".into() },
            writable(Layers::Overlay { lower: "/l".into(), upper: "/u".into(), work: "/w".into() }),
            writable(Layers::Copy { root: "/c".into() }),
        ];
        let around =
            [Some(varied()), Some(Surroundings::default()), None, None, None].map(|around| around.map(Box::new));
        for (system, surroundings) in systems.into_iter().zip(around) {
            let spec = SandboxSpec { system, surroundings, ..spec() };
            let bytes: &[u8] = encode_spec(&spec).leak();
            let back = decode_spec(bytes).expect("it reads back");
            assert_eq!(format!("{back:?}"), format!("{spec:?}"));
            for end in 0..bytes.len() {
                assert!(decode_spec(&bytes[..end]).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn what_was_sent_arrives_although_the_sender_went_without_reading() {
        let (ours, theirs) = crate::sandbox::checks::socket_pair().expect("a pair of sockets");
        send(&theirs, b"report", &[]).expect("there is room");
        send(&ours, KILL, &[]).expect("there is room");
        drop(theirs);
        let received = receive(&ours).expect("no error").map(|(bytes, _)| bytes);
        assert_eq!(received.as_deref(), Some(&b"report"[..]));
        assert!(receive(&ours).expect("no error").is_none());
    }

    #[test]
    fn requests_and_reports_arrive_as_they_were_sent() {
        for level in [Level::None, Level::Landlock, Level::Namespaces] {
            for network in [Network::Loopback, Network::Pod, Network::Host] {
                for purpose in [Purpose::Run, Purpose::Probe, Purpose::Answer, Purpose::Pod] {
                    for bits in 0..48 {
                        let [checks, pod, crowd, berth] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
                        let company = Company { checks, pod, crowd, berth, groups: bits >> 4 };
                        let request = Request { level, network, purpose, company };
                        assert_eq!(Request::decode(&request.encode()), Ok(request));
                    }
                }
            }
        }
        let usage = Usage { cpu_ms: 7, max_rss_kib: 8 };
        let reports = [
            Report::Ended { status: Status::Code(-1), usage, aside: Aside::Observation, crowded: false },
            Report::Ended { status: Status::Signal(9), usage, aside: Aside::Owned, crowded: true },
            Report::nothing_of(Status::Code(3)),
            Report::CannotStart { cause: "no".into() },
            Report::Failed(Failure { step: "mounting".into(), cause: "no".into(), errno: 1 }),
        ];
        for report in reports {
            assert_eq!(Report::decode(&report.encode()), Ok(report));
        }
    }

    #[test]
    fn a_text_too_long_for_a_message_is_cut_at_a_letter() {
        let report = Report::CannotStart { cause: "ü".repeat(TEXT_BYTES_MAX) };
        let Ok(Report::CannotStart { cause }) = Report::decode(&report.encode()) else { panic!("it reads back") };
        assert_eq!(cause.len(), TEXT_BYTES_MAX);
    }
}
