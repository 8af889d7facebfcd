//! Tokens: asked for where a challenge says, kept until they end, renewed when a registry no longer takes one.
//!
//! One thread asks for tokens at a time, so that several transfers that are refused together ask once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde::Deserialize;
use ureq::http::Method;

use crate::registry::challenge::Challenge;
use crate::registry::client::{Client, Question, Sent};
use crate::registry::credentials::{Credentials, Secret, find};
use crate::registry::error::RegistryError;
use crate::registry::reference::Repository;
use crate::registry::url::{Url, encoded};

/// Largest answer of a server of tokens, in bytes.
const TOKEN_BYTES_MAX: u64 = 1024 * 1024;
/// How long a token is good for where nobody says ("Token Authentication Specification").
const TOKEN_SECONDS: u64 = 60;
/// A token is renewed this long before it ends.
const MARGIN: Duration = Duration::from_secs(5);
/// Who we are to a server of OAuth2.
const CLIENT_ID: &str = "drystone";

/// What is known of who may do what. Secrets stay here.
#[derive(Default)]
pub(super) struct Access {
    challenges: Mutex<BTreeMap<String, Challenge>>,
    credentials: Mutex<BTreeMap<Repository, Option<Credentials>>>,
    tokens: Mutex<BTreeMap<(String, Vec<String>), Token>>,
}

struct Token {
    authorization: Authorization,
    until: Instant,
}

/// The value of an `Authorization`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Authorization(Secret);

impl Authorization {
    /// The value, for the header.
    pub fn header(&self) -> &str {
        self.0.reveal()
    }

    /// Words of others without it: some say back what they were sent.
    pub fn hidden_in(&self, words: &str) -> String {
        let secret = self.header().split_once(' ').map_or(self.header(), |(_, secret)| secret);
        if secret.is_empty() { words.to_owned() } else { words.replace(secret, "…") }
    }

    fn bearer(token: &str) -> Self {
        Self(Secret::new(format!("Bearer {token}")))
    }

    fn basic(user: &str, password: &Secret) -> Self {
        let pair = format!("{user}:{}", password.reveal());
        Self(Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))))
    }
}

/// What a server of tokens answers.
#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Nothing is left half done by a thread that panicked: each change is one insertion.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// What is sent along with a question, as far as it is known what the host wants.
    pub(super) fn authorization(&self, question: &Question<'_>) -> Result<Option<Authorization>, RegistryError> {
        let challenge = locked(&self.access.challenges).get(question.repository.server()).cloned();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => self.basic(question.repository),
            Some(bearer) => self.token(question, &bearer, None).map(Some),
        }
    }

    /// Learns from a challenge; whether there is something new to try. `used` is what was refused.
    pub(super) fn renew(
        &self,
        question: &Question<'_>,
        challenges: &[Challenge],
        used: Option<&Authorization>,
    ) -> Result<bool, RegistryError> {
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or(challenges.first()) else { return Ok(false) };
        let server = question.repository.server().to_owned();
        // The scope is of this question only.
        let kept = match challenge.clone() {
            Challenge::Bearer { realm, service, .. } => Challenge::Bearer { realm, service, scope: None },
            Challenge::Basic => Challenge::Basic,
        };
        locked(&self.access.challenges).insert(server, kept);
        let fresh = match challenge {
            Challenge::Basic => self.basic(question.repository)?,
            bearer => Some(self.token(question, bearer, used)?),
        };
        Ok(fresh.is_some() && fresh.as_ref() != used)
    }

    fn basic(&self, repository: &Repository) -> Result<Option<Authorization>, RegistryError> {
        Ok(match self.credentials(repository)? {
            Some(Credentials::Basic { user, password }) => Some(Authorization::basic(&user, &password)),
            _ => None,
        })
    }

    fn credentials(&self, repository: &Repository) -> Result<Option<Credentials>, RegistryError> {
        // Held while a program is asked, so that it is asked once.
        let mut known = locked(&self.access.credentials);
        if let Some(known) = known.get(repository) {
            return Ok(known.clone());
        }
        let found = find(&self.settings().variables, repository)?;
        known.insert(repository.clone(), found.clone());
        Ok(found)
    }

    /// A token for what is asked; another one than `refused`.
    fn token(
        &self,
        question: &Question<'_>,
        challenge: &Challenge,
        refused: Option<&Authorization>,
    ) -> Result<Authorization, RegistryError> {
        let key = (question.repository.server().to_owned(), question.scopes.clone());
        let mut tokens = locked(&self.access.tokens);
        if let Some(token) = tokens.get(&key)
            && refused != Some(&token.authorization)
            && Instant::now() < token.until
        {
            return Ok(token.authorization.clone());
        }
        tokens.remove(&key);
        let credentials = self.credentials(question.repository)?;
        if let Some(Credentials::Ready(token)) = &credentials {
            return Ok(Authorization::bearer(token.reveal()));
        }
        // Whoever asks this asks again after trouble that may pass: patience here would be patience times patience.
        let given = self.ask_for_token(question, challenge, credentials.as_ref())?;
        let seconds = Duration::from_secs(given.expires_in.filter(|seconds| *seconds > 0).unwrap_or(TOKEN_SECONDS));
        // One that ends at once is good for one question.
        let good_for = seconds.saturating_sub(MARGIN).max(seconds / 2);
        let token = given.token.filter(|token| !token.is_empty()).or(given.access_token).unwrap_or_default();
        let authorization = Authorization::bearer(&token);
        let until = Instant::now().checked_add(good_for).unwrap_or_else(Instant::now);
        tokens.insert(key, Token { authorization: authorization.clone(), until });
        Ok(authorization)
    }

    fn ask_for_token(
        &self,
        question: &Question<'_>,
        challenge: &Challenge,
        credentials: Option<&Credentials>,
    ) -> Result<Given, RegistryError> {
        let Challenge::Bearer { realm, service, scope } = challenge else {
            unreachable!("BUG: a token was asked for without a challenge that says where");
        };
        let scopes: BTreeSet<&str> =
            question.scopes.iter().map(String::as_str).chain(scope.iter().flat_map(|scope| scope.split(' '))).collect();
        let scopes: Vec<&str> = covered(scopes);
        let host = question.repository.server();
        let asked = format!("a token for {}", question.repository.name);
        let wrong = |cause: String| RegistryError::Wrong { host: host.to_owned(), asked: asked.clone(), cause };
        let realm = Url::parse(realm).map_err(|cause| wrong(format!("where tokens are given: {cause}")))?;
        if self.url(question.repository, "").is_secure() && !realm.is_secure() {
            return Err(wrong("tokens are given over plain http, which is not trusted".into()));
        }
        let mut form = String::new();
        let (method, url, authorization) = match credentials {
            Some(Credentials::Identity(token)) => {
                form = format!(
                    "grant_type=refresh_token&client_id={CLIENT_ID}&refresh_token={}&service={}&scope={}",
                    encoded(token.reveal()),
                    encoded(service.as_deref().unwrap_or_default()),
                    encoded(&scopes.join(" ")),
                );
                (Method::POST, realm, None)
            }
            _ => {
                let mut url = realm;
                if let Some(service) = service {
                    url = url.with_query("service", service);
                }
                for scope in &scopes {
                    url = url.with_query("scope", scope);
                }
                match credentials {
                    Some(Credentials::Basic { user, password }) => {
                        (Method::GET, url.with_query("account", user), Some(Authorization::basic(user, password)))
                    }
                    _ => (Method::GET, url, None),
                }
            }
        };
        let is_form = method == Method::POST;
        let form_type = ("Content-Type", "application/x-www-form-urlencoded".to_owned());
        let token_question = Question {
            method,
            url: url.clone(),
            repository: question.repository,
            asked,
            scopes: Vec::new(),
            headers: if is_form { vec![form_type] } else { Vec::new() },
            body: if is_form { Sent::Bytes(form.as_bytes()) } else { Sent::Nothing },
        };
        let answer = self.send(&token_question, &url, authorization.as_ref(), false)?;
        if answer.status != 200 {
            return Err(answer.refusal());
        }
        let no_token = answer.wrong("there is no token in it".into());
        let bytes = answer.document(TOKEN_BYTES_MAX)?;
        // The words of the parser may hold a piece of the token.
        let Ok(given) = serde_json::from_slice::<Given>(&bytes) else { return Err(no_token) };
        let token = given.token.as_ref().filter(|token| !token.is_empty()).or(given.access_token.as_ref());
        let is_fine = token.is_some_and(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        if is_fine { Ok(given) } else { Err(no_token) }
    }
}

/// Scopes without those that others hold: `pull` beside `pull,push` of the same repository.
fn covered(scopes: BTreeSet<&str>) -> Vec<&str> {
    let split = |scope: &str| {
        let (name, actions) = scope.rsplit_once(':')?;
        Some((name.to_owned(), actions.split(',').map(str::to_owned).collect::<BTreeSet<_>>()))
    };
    let holds = |whole: &str, part: &str| match (split(whole), split(part)) {
        (Some((one, all)), Some((other, some))) => one == other && all.is_superset(&some) && all != some,
        _ => false,
    };
    let all: Vec<&str> = scopes.into_iter().filter(|scope| !scope.is_empty()).collect();
    all.iter().copied().filter(|part| !all.iter().any(|whole| holds(whole, part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_another_holds_are_left_out() {
        let check = |scopes: &[&str], expect: &[&str]| {
            assert_eq!(covered(scopes.iter().copied().collect()), expect, "{scopes:?}");
        };
        check(&["repository:a:pull", "repository:a:pull,push"], &["repository:a:pull,push"]);
        check(&["repository:a:pull", "repository:b:pull,push"], &["repository:a:pull", "repository:b:pull,push"]);
        check(&["", "x"], &["x"]);
        check(
            &["repository:a:push,pull", "repository:a:pull,push"],
            &["repository:a:pull,push", "repository:a:push,pull"],
        );
    }
}
