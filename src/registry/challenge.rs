//! The grammar of `WWW-Authenticate` (RFC 9110, 11.6.1): several challenges, quoted values that hold commas. Judges nothing.

/// How a server wants to be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Challenge {
    /// With a token that another server gives.
    Bearer {
        /// Where it is given.
        realm: String,
        /// For which service.
        service: Option<String>,
        /// For what, as `repository:a/b:pull`; several with blanks between.
        scope: Option<String>,
    },
    /// With a name and a password.
    Basic,
}

/// Most bytes looked at.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// All challenges of some headers that we know, in their order.
pub fn challenges<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let raw = headers.into_iter().flat_map(|header| read(&header[..header.floor_char_boundary(HEADER_BYTES_MAX)]));
    raw.filter_map(known).collect()
}

struct Raw {
    scheme: String,
    parameters: Vec<(String, String)>,
}

fn known(raw: Raw) -> Option<Challenge> {
    let value = |wanted: &str| {
        let found = raw.parameters.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    };
    match raw.scheme.as_str() {
        "bearer" => {
            Some(Challenge::Bearer { realm: value("realm")?, service: value("service"), scope: value("scope") })
        }
        "basic" => Some(Challenge::Basic),
        _ => None,
    }
}

fn read(header: &str) -> Vec<Raw> {
    let mut found: Vec<Raw> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|letter: char| !is_token(letter)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        if word.is_empty() {
            // What is no word ends what can be understood.
            return found;
        }
        let after = behind.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(value), Some(challenge)) if !value.starts_with('=') => {
                let Some((value, behind)) = value_of(value.trim_start_matches([' ', '\t'])) else { return found };
                challenge.parameters.push((word.to_ascii_lowercase(), value));
                rest = behind;
            }
            // `token68`, as `Negotiate abc==` has it: no scheme of ours.
            (Some(padding), Some(_)) => rest = padding.trim_start_matches('='),
            (Some(_), None) => return found,
            (None, _) => {
                found.push(Raw { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest = behind;
            }
        }
    }
}

fn is_token(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(letter)
}

/// A value, quoted or not, and what stands behind it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope: scope.map(Into::into) }
    }

    #[test]
    fn challenges_are_read_as_servers_write_them() {
        let check = |header: &str, expect: &[Challenge]| assert_eq!(challenges([header]), expect, "{header}");
        let whole = bearer("https://a.example/token", Some("r"), Some("repository:a:pull,push"));
        check(
            r#"Bearer realm="https://a.example/token",service="r",scope="repository:a:pull,push""#,
            std::slice::from_ref(&whole),
        );
        check(
            r#"bEARER Realm="https://a.example/token" , SERVICE=r,scope = "repository:a:pull,push", error="invalid_token""#,
            std::slice::from_ref(&whole),
        );
        check(r#"Basic realm="x, Bearer realm=\"y\"""#, &[Challenge::Basic]);
        check(r#"Negotiate, Basic realm="x", Bearer realm="u""#, &[Challenge::Basic, bearer("u", None, None)]);
        check(r#"Negotiate YWJj==, Bearer realm=u,service=s"#, &[bearer("u", Some("s"), None)]);
        check("Basic", &[Challenge::Basic]);
        check(r#"Bearer service="no realm""#, &[]);
        check(r#"Bearer realm="never ends"#, &[]);
        check("", &[]);
        check(r#"realm="x""#, &[]);
        assert_eq!(challenges(["Basic", r#"Bearer realm="u""#]).len(), 2);
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_reader(header in "([A-Za-z]{1,6}|[ ,=\"\\\\]|\\PC){0,60}") {
            challenges([header.as_str()]);
        }

        #[test]
        fn every_quoted_value_comes_back(value in "[ -~]{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(challenges([format!("Bearer realm=\"{quoted}\", service=s").as_str()]), vec![bearer(&value, Some("s"), None)]);
        }
    }
}
