//! What an image takes over from its base: how it is started, its layers, their history. Changes no byte of a layer.

use std::collections::BTreeMap;

use crate::image::blob::BlobDigest;
use crate::image::error::ImageError;
use crate::image::wire::{Config, Descriptor, Execution, Manifest, Step};

/// What a history says of a layer of whose making nothing is known.
const UNKNOWN_STEP: &str = "layer of the base image";

/// How an image is started whose base is started so: what is set of its own wins, variables by name, and the sets are united.
/// An entrypoint of its own takes the arguments of the base away.
pub(super) fn execution(base: Option<&Execution>, own: &Execution) -> Execution {
    let base = base.cloned().unwrap_or_default();
    let cmd = match &own.entrypoint {
        Some(_) => own.cmd.clone(),
        None => own.cmd.clone().or(base.cmd),
    };
    Execution {
        user: filled(own.user.clone().or(base.user)),
        exposed_ports: united(base.exposed_ports, own.exposed_ports.clone()),
        env: listed(Some(variables(base.env.unwrap_or_default(), own.env.clone().unwrap_or_default()))),
        entrypoint: listed(own.entrypoint.clone().or(base.entrypoint)),
        cmd: listed(cmd),
        volumes: united(base.volumes, own.volumes.clone()),
        working_dir: filled(own.working_dir.clone().or(base.working_dir)),
        labels: united(base.labels, own.labels.clone()),
        stop_signal: filled(own.stop_signal.clone().or(base.stop_signal)),
    }
}

// Absent rather than empty: both mean the same, and one of them is written.
fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn listed(list: Option<Vec<String>>) -> Option<Vec<String>> {
    list.filter(|list| !list.is_empty())
}

fn united<T>(base: Option<BTreeMap<String, T>>, own: Option<BTreeMap<String, T>>) -> Option<BTreeMap<String, T>> {
    let mut all = base.unwrap_or_default();
    all.extend(own.unwrap_or_default());
    Some(all).filter(|all| !all.is_empty())
}

/// Variables keep the place in which their name comes first, and the value that comes last.
fn variables(base: Vec<String>, own: Vec<String>) -> Vec<String> {
    let name_of = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut places = BTreeMap::new();
    let mut all: Vec<String> = Vec::new();
    for variable in base.into_iter().chain(own) {
        let place = *places.entry(name_of(&variable)).or_insert(all.len());
        match all.get_mut(place) {
            Some(earlier) => *earlier = variable,
            None => all.push(variable),
        }
    }
    all
}

/// Layers of a base in the words of OCI, whoever wrote them.
pub(super) fn layers(manifest: &Manifest) -> Result<Vec<Descriptor>, ImageError> {
    let in_words_of_oci = |layer: &Descriptor| {
        BlobDigest::parse(&layer.digest)?;
        if !layer.is_layer() {
            let media_type = layer.media_type.escape_debug();
            return Err(ImageError::Assembly(format!("a layer of the base has type `{media_type}`")));
        }
        let media_type = match layer.media_type.as_str() {
            "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar.zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            }
            other => other,
        };
        Ok(Descriptor { media_type: media_type.to_owned(), ..layer.clone() })
    };
    manifest.layers.iter().map(in_words_of_oci).collect()
}

/// Digests of the layers of a base unpacked, as many as it has layers.
pub(super) fn diff_ids(config: &Config, layers: usize) -> Result<Vec<String>, ImageError> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers {
        let told = diff_ids.len();
        return Err(ImageError::Assembly(format!(
            "the base has {layers} layers, and its configuration tells of {told}"
        )));
    }
    diff_ids.iter().map(|text| BlobDigest::parse(text).map(|digest| digest.to_string())).collect()
}

/// The history of a base if it has one line for each layer, beside those that made none; else such a one.
pub(super) fn history(config: &Config) -> Vec<Step> {
    let layers = config.rootfs.diff_ids.len();
    let told = config.history.clone().unwrap_or_default();
    if told.iter().filter(|step| step.empty_layer != Some(true)).count() == layers {
        return told;
    }
    let unknown = Step { created: config.created.clone(), created_by: Some(UNKNOWN_STEP.into()), ..Step::default() };
    vec![unknown; layers]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::wire::Empty;

    fn texts(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn set(words: &[&str]) -> Option<BTreeMap<String, Empty>> {
        Some(words.iter().map(|word| ((*word).to_owned(), Empty {})).collect())
    }

    fn labels(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_is_set_of_its_own_wins() {
        let base = Execution {
            user: Some("1".into()),
            exposed_ports: set(&["80/tcp"]),
            env: texts(&["PATH=/bin", "A=1", "B=2"]),
            entrypoint: texts(&["/init"]),
            cmd: texts(&["serve"]),
            volumes: set(&["/data"]),
            working_dir: Some("/srv".into()),
            labels: labels(&[("a", "1"), ("b", "2")]),
            stop_signal: Some("SIGINT".into()),
        };
        assert_eq!(execution(Some(&base), &Execution::default()), base);
        let own = Execution {
            user: Some("2".into()),
            exposed_ports: set(&["443/tcp"]),
            env: texts(&["C=3", "A=4", "C=5"]),
            volumes: set(&["/log"]),
            labels: labels(&[("b", "3"), ("c", "4")]),
            ..Execution::default()
        };
        let merged = execution(Some(&base), &own);
        assert_eq!(merged.env, texts(&["PATH=/bin", "A=4", "B=2", "C=5"]));
        assert_eq!(merged.exposed_ports, set(&["443/tcp", "80/tcp"]));
        assert_eq!(merged.volumes, set(&["/data", "/log"]));
        assert_eq!(merged.labels, labels(&[("a", "1"), ("b", "3"), ("c", "4")]));
        assert_eq!((merged.user.as_deref(), merged.working_dir.as_deref()), (Some("2"), Some("/srv")));
        assert_eq!((merged.entrypoint, merged.cmd), (base.entrypoint.clone(), base.cmd.clone()));
    }

    #[test]
    fn an_entrypoint_of_its_own_takes_the_arguments_of_the_base_away() {
        let base = Execution { entrypoint: texts(&["/init"]), cmd: texts(&["serve"]), ..Execution::default() };
        let check = |entrypoint: Option<&[&str]>, cmd: Option<&[&str]>, expect: (Option<&[&str]>, Option<&[&str]>)| {
            let own =
                Execution { entrypoint: entrypoint.and_then(texts), cmd: cmd.and_then(texts), ..Execution::default() };
            let merged = execution(Some(&base), &own);
            let told = (merged.entrypoint, merged.cmd);
            assert_eq!(told, (expect.0.and_then(texts), expect.1.and_then(texts)), "{entrypoint:?} {cmd:?}");
        };
        check(None, Some(&["x"]), (Some(&["/init"]), Some(&["x"])));
        check(Some(&["/app"]), None, (Some(&["/app"]), None));
        check(Some(&["/app"]), Some(&["x"]), (Some(&["/app"]), Some(&["x"])));
        check(Some(&[]), Some(&["/app"]), (None, Some(&["/app"])));
        check(None, Some(&[]), (Some(&["/init"]), None));
    }

    #[test]
    fn a_history_has_a_line_for_each_layer() {
        let config = |history: &str| {
            let text = format!(
                r#"{{"created":"2020-01-01T00:00:00Z","architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["a","b"]}},"history":{history}}}"#
            );
            Config::read(text.as_bytes(), "c").expect("a configuration")
        };
        let fits =
            r#"[{"created_by":"1"},{"created_by":"ENV","empty_layer":true},{"created_by":"2","empty_layer":false}]"#;
        assert_eq!(history(&config(fits)).len(), 3);
        for other in ["null", "[]", r#"[{"created_by":"1"}]"#, r#"[{},{},{}]"#] {
            let made = history(&config(other));
            assert_eq!(made.len(), 2, "{other}");
            assert!(made.iter().all(|step| step.created_by.as_deref() == Some(UNKNOWN_STEP)), "{other}");
            assert_eq!(made[0].created.as_deref(), Some("2020-01-01T00:00:00Z"));
        }
    }
}
