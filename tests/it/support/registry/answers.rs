//! What the fake registry answers: the distribution protocol with tokens, from memory.

use base64::Engine as _;
use serde_json::{Value, json};

use super::http::{Reply, Request, parameters};
use super::{Auth, Lie, Repo, Shared, State, digest_of};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()
}

/// Repository, kind (`blobs`, …) and the rest of a path of the protocol.
fn parts(path: &str) -> Option<(&str, &str, &str)> {
    let below = path.strip_prefix("/v2/")?;
    ["/blobs/uploads/", "/blobs/", "/manifests/", "/referrers/"].iter().find_map(|kind| {
        let at = below.find(kind)?;
        Some((&below[..at], kind.trim_matches('/'), &below[at + kind.len()..]))
    })
}

impl Shared {
    /// Why a request is refused before its body counts.
    pub(super) fn refusal(&self, request: &Request) -> Option<Reply> {
        let behaviour = &self.behaviour;
        let authorization = request.header("authorization");
        if behaviour.refuses_authorization && authorization.is_some() {
            return Some(Reply::error(400, "InvalidArgument", "only one way to sign is allowed"));
        }
        let is_upload = request.path.contains("/blobs/uploads/") && request.method.starts_with('P');
        if behaviour.leads_uploads_on && is_upload && request.parameters("again").is_empty() {
            return Some(Reply::new(307).with("Location", format!("{}?{}&again=1", request.path, request.query)));
        }
        let mut state = self.lock();
        if state.busy < behaviour.busy {
            state.busy += 1;
            let busy = Reply::error(429, "TOOMANYREQUESTS", "slow down");
            return Some(busy.with("Retry-After", behaviour.retry_after));
        }
        let what = format!("{} {}", request.method, request.path);
        if behaviour.stumbles_over.is_some_and(|words| what.contains(words)) && state.stumbled < behaviour.stumbles {
            state.stumbled += 1;
            return Some(Reply::new(503));
        }
        if request.path == "/token" {
            return None;
        }
        let unauthorized = |challenge: String| {
            Some(Reply::error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge))
        };
        match behaviour.auth {
            Auth::None => None,
            Auth::Basic(user, password) => {
                let pair = authorization.and_then(|text| decoded(text.strip_prefix("Basic ")?));
                let fine = pair == Some(format!("{user}:{password}"));
                if fine { None } else { unauthorized(r#"Basic realm="a registry, of tests""#.into()) }
            }
            Auth::Token { uses, .. } => {
                let (name, _, _) = parts(&request.path)?;
                let reads = ["GET", "HEAD"].contains(&request.method.as_str());
                let action = if reads { "pull" } else { "pull,push" };
                let mut needed = vec![format!("repository:{name}:{action}")];
                needed.extend(request.parameters("from").iter().map(|from| format!("repository:{from}:pull")));
                let holds = |scopes: &[String]| {
                    needed.iter().all(|need| {
                        let whole = need.trim_end_matches(":pull").trim_end_matches(":pull,push");
                        scopes.iter().any(|scope| scope == need || *scope == format!("{whole}:pull,push"))
                    })
                };
                let token = authorization.and_then(|text| text.strip_prefix("Bearer "));
                state.asked += usize::from(token.is_some());
                let (asked, known) = (state.asked, token.and_then(|token| state.tokens.get(token)));
                if known.is_some_and(|(scopes, is_late)| holds(scopes) && (*is_late || asked <= uses)) {
                    return None;
                }
                let realm = format!("http://{}/token", self.address);
                let scope = format!("repository:{name}:{action}");
                unauthorized(format!(r#"Bearer realm="{realm}", service="fake, really", scope="{scope}""#))
            }
        }
    }

    /// The answer to a request whose body is there.
    pub(super) fn reply(&self, request: &Request) -> Reply {
        if request.path == "/token" {
            return self.token(request);
        }
        if self.behaviour.lie == Lie::Circle && request.path.contains("/blobs/sha256") {
            return Reply::new(307).with("Location", request.path.clone());
        }
        let Some((name, kind, rest)) = parts(&request.path) else { return Reply::error(404, "NAME_UNKNOWN", "") };
        if self.behaviour.echoes && kind == "manifests" && request.method == "PUT" {
            let whose = request.header("authorization").unwrap_or_default();
            return Reply::error(400, "DENIED", &format!("not for {whose}"));
        }
        let mut state = self.lock();
        match kind {
            "blobs/uploads" => self.upload(&mut state, request, name, rest),
            "blobs" => self.blob(&mut state, request, name, rest),
            "manifests" if request.method == "PUT" => self.put_manifest(&mut state, request, name, rest),
            "manifests" => self.manifest(&state, name, rest),
            "referrers" if self.behaviour.referrers => referrers(&state, request, name, rest),
            _ => Reply::error(404, "UNSUPPORTED", "what is this"),
        }
    }

    fn token(&self, request: &Request) -> Reply {
        let Auth::Token { to, uses } = self.behaviour.auth else { return Reply::new(404) };
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let (given, scopes) = if request.method == "POST" {
            let scopes = parameters(&form, "scope");
            let scopes = scopes.iter().flat_map(|scope| scope.split(' ')).map(str::to_owned).collect();
            (parameters(&form, "refresh_token").pop(), scopes)
        } else {
            let basic = request.header("authorization").and_then(|text| decoded(text.strip_prefix("Basic ")?));
            (basic, request.parameters("scope"))
        };
        if !to.is_empty() && given.as_deref() != Some(to) {
            return Reply::error(401, "UNAUTHORIZED", "wrong password");
        }
        let mut state = self.lock();
        state.counter += 1;
        let token = format!("token-{}", state.counter);
        let is_late = uses == 0 || state.asked > uses;
        state.tokens.insert(token.clone(), (scopes, is_late));
        let body = json!({ "access_token": token, "expires_in": 300 }).to_string().into_bytes();
        Reply { body, ..Reply::new(200) }
    }

    fn location(&self, path: &str) -> String {
        if self.behaviour.relative { path.to_owned() } else { format!("http://{}{path}", self.address) }
    }

    fn upload(&self, state: &mut State, request: &Request, name: &str, id: &str) -> Reply {
        let begun = |state: &mut State, has: Option<usize>| {
            let path = format!("/v2/{name}/blobs/uploads/{}?_state=a%2Fb", state.counter);
            let location = match &self.behaviour.uploads_elsewhere {
                Some(elsewhere) => format!("{elsewhere}{path}"),
                None => self.location(&path),
            };
            let reply = Reply::new(202).with("Location", location);
            match has {
                Some(_) if self.behaviour.told_range.is_some() => {
                    reply.with("Range", self.behaviour.told_range.unwrap_or_default())
                }
                Some(has) => reply.with("Range", format!("0-{}", has.saturating_sub(1))),
                None => reply,
            }
        };
        if request.method == "POST" {
            if let (Some(digest), Some(from)) = (request.parameters("mount").pop(), request.parameters("from").pop()) {
                let found = state.repos.get(&from).and_then(|repo| repo.blobs.get(&digest)).cloned();
                match found.filter(|_| self.behaviour.mounts) {
                    Some(bytes) => {
                        state.repos.entry(name.to_owned()).or_default().blobs.insert(digest, bytes);
                        return Reply::new(201);
                    }
                    None if self.behaviour.mount_refusal != 202 => {
                        return Reply::error(self.behaviour.mount_refusal, "UNSUPPORTED", "no mounts");
                    }
                    None => {}
                }
            }
            state.counter += 1;
            let id = state.counter.to_string();
            state.uploads.insert(id, Vec::new());
            return begun(state, None);
        }
        let Some(mut bytes) = state.uploads.remove(id) else { return Reply::error(404, "BLOB_UPLOAD_UNKNOWN", id) };
        assert_eq!(request.parameters("_state"), ["a/b"], "the query of a Location is kept");
        match request.method.as_str() {
            "DELETE" => Reply::new(204),
            "PATCH" if self.behaviour.piece_max == 0 => Reply::error(400, "UNSUPPORTED", "no chunked uploads"),
            "PATCH" if request.body.len() > self.behaviour.piece_max => {
                Reply::error(416, "RANGE_INVALID", "exceeds the maximum permissible limit of 4.00MiB")
            }
            "PATCH" => {
                let range = format!("{}-{}", bytes.len(), bytes.len() + request.body.len() - 1);
                assert_eq!(request.header("content-range"), Some(range.as_str()), "pieces come in their order");
                bytes.extend_from_slice(&request.body);
                let has = if self.behaviour.loses_pieces { bytes.len() / 2 } else { bytes.len() };
                state.counter += 1;
                state.uploads.insert(state.counter.to_string(), bytes);
                begun(state, Some(has))
            }
            _ => {
                if request.body.len() > self.behaviour.whole_max {
                    return Reply::error(413, "SIZE_INVALID", "too large");
                }
                bytes.extend_from_slice(&request.body);
                let digest = request.parameters("digest").pop().unwrap_or_default();
                if digest_of(&bytes) != digest {
                    return Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
                }
                state.repos.entry(name.to_owned()).or_default().blobs.insert(digest.clone(), bytes);
                Reply::new(201).with("Docker-Content-Digest", digest)
            }
        }
    }

    fn blob(&self, state: &mut State, request: &Request, name: &str, digest: &str) -> Reply {
        let Some(mut bytes) = state.repos.get(name).and_then(|repo| repo.blobs.get(digest)).cloned() else {
            return Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        if request.method == "HEAD" {
            return Reply { length: Some(bytes.len()), ..Reply::new(200) };
        }
        if let Some(elsewhere) = &self.behaviour.elsewhere {
            return Reply::new(307).with("Location", format!("{elsewhere}{}?signature=s", request.path));
        }
        match self.behaviour.lie {
            Lie::BlobBytes => bytes[0] ^= 1,
            Lie::LongBlobs => bytes.push(0),
            _ => {}
        }
        let all = bytes.len();
        let range = request.header("range").filter(|_| !self.behaviour.ignores_range);
        let from = range.and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let mut reply = match from {
            Some(from) if from >= all => return Reply::error(416, "RANGE_INVALID", ""),
            Some(from) => {
                let told = format!("bytes {from}-{}/{all}", all - 1);
                Reply { body: bytes.split_off(from), ..Reply::new(206) }.with("Content-Range", told)
            }
            None => Reply { body: bytes, ..Reply::new(200) },
        };
        if state.broken < self.behaviour.breaks_off {
            state.broken += 1;
            reply.length = Some(reply.body.len());
            reply.body.truncate(reply.body.len() / 2);
            reply.ends = true;
        }
        reply
    }

    fn manifest(&self, state: &State, name: &str, wanted: &str) -> Reply {
        let found = state.repos.get(name).and_then(|repo| {
            let digest = repo.tags.get(wanted).map_or(wanted, String::as_str);
            repo.manifests.get(digest).map(|(kind, bytes)| (digest.to_owned(), kind.clone(), bytes.clone()))
        });
        let Some((digest, kind, mut bytes)) = found else {
            return Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        match self.behaviour.lie {
            Lie::ManifestBytes => bytes.push(b'\n'),
            Lie::EndlessManifest => bytes.resize(5 << 20, b' '),
            _ => {}
        }
        let reply = Reply { body: bytes, ..Reply::new(200) }.with("Content-Type", kind);
        let told = if self.behaviour.lie == Lie::ToldDigest { digest_of(b"") } else { digest };
        if self.behaviour.tells_no_digest { reply } else { reply.with("Docker-Content-Digest", told) }
    }

    fn put_manifest(&self, state: &mut State, request: &Request, name: &str, wanted: &str) -> Reply {
        let document: Value = serde_json::from_slice(&request.body).expect("a document");
        let digest = digest_of(&request.body);
        if wanted.starts_with("sha256:") && wanted != digest {
            return Reply::error(400, "DIGEST_INVALID", "");
        }
        let repo = state.repos.entry(name.to_owned()).or_default();
        if let Some(missing) = missing(repo, &document) {
            return Reply::error(400, "MANIFEST_BLOB_UNKNOWN", &missing);
        }
        let kind = request.header("content-type").expect("a type").to_owned();
        assert_eq!(document["mediaType"].as_str().unwrap_or(&kind), kind, "both say the same");
        repo.manifests.insert(digest.clone(), (kind, request.body.clone()));
        if !wanted.starts_with("sha256:") {
            repo.tags.insert(wanted.to_owned(), digest.clone());
        }
        let reply = Reply::new(201);
        let reply = match document["subject"]["digest"].as_str().filter(|_| self.behaviour.referrers) {
            Some(subject) => reply.with("OCI-Subject", subject),
            None => reply,
        };
        if self.behaviour.tells_no_digest { reply } else { reply.with("Docker-Content-Digest", digest) }
    }
}

/// What a document names and the repository lacks.
fn missing(repo: &Repo, document: &Value) -> Option<String> {
    let list = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let digest = |value: &Value| value["digest"].as_str().unwrap_or_default().to_owned();
    let blobs = list("layers").into_iter().chain(document.get("config").cloned());
    let lacks_blob = blobs.map(|blob| digest(&blob)).find(|digest| !repo.blobs.contains_key(digest));
    let children = list("manifests").into_iter();
    lacks_blob.or_else(|| children.map(|child| digest(&child)).find(|child| !repo.manifests.contains_key(child)))
}

/// Two referrers a page.
fn referrers(state: &State, request: &Request, name: &str, subject: &str) -> Reply {
    let empty = Repo::default();
    let repo = state.repos.get(name).unwrap_or(&empty);
    let of = repo.manifests.iter().filter_map(|(digest, (kind, bytes))| {
        let document: Value = serde_json::from_slice(bytes).ok()?;
        (document["subject"]["digest"] == subject).then(|| {
            let artifact = document.get("artifactType").unwrap_or(&document["config"]["mediaType"]).clone();
            json!({"mediaType": kind, "digest": digest, "size": bytes.len(), "artifactType": artifact})
        })
    });
    let all: Vec<Value> = of.collect();
    let from: usize = request.parameters("from").pop().map_or(0, |text| text.parse().expect("a number"));
    let page: Vec<&Value> = all.iter().skip(from).take(2).collect();
    let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": page}).to_string().into_bytes();
    let reply = Reply { body, ..Reply::new(200) }.with("Content-Type", INDEX);
    if from + 2 < all.len() {
        return reply.with("Link", format!("<{}?from={}>; rel=\"next\"", request.path, from + 2));
    }
    reply
}
