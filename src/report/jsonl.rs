//! `--format json`: one JSON object a line, written as the events come. The objects are [`crate::report::wire`]'s.

use std::sync::Arc;

use crate::base::span::Sources;
use crate::engine::event::{Event, EventSink};
use crate::report::out::Out;
use crate::report::wire::EventLine;

/// Writes every event as one line.
pub struct Jsonl {
    out: Out,
    sources: Arc<Sources>,
}

impl Jsonl {
    /// Writes to `out`; `sources` are the texts that diagnostics point into.
    pub fn new(out: Out, sources: Arc<Sources>) -> Self {
        Self { out, sources }
    }
}

impl EventSink for Jsonl {
    fn event(&mut self, event: &Event) {
        let line = EventLine::of(event, &self.sources);
        let text = serde_json::to_string(&line).expect("strings, numbers and lists of them are always JSON");
        self.out.line(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::out::tests::Kept;
    use crate::report::sample;
    use crate::report::wire::event_schema;

    fn lines() -> Vec<String> {
        let kept = Kept::default();
        let (sources, events) = sample::whole_run();
        let mut sink = Jsonl::new(Out::new(kept.clone()), sources);
        for event in &events {
            sink.event(event);
        }
        kept.text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_whole_run_is_one_object_a_line() {
        insta::assert_snapshot!(lines().join("\n"), @r#"
        {"event":"run.started","run":"run-1","tasks":5,"jobs":2}
        {"event":"notice","severity":"warning","message":"the store was damaged and has been set aside","places":[],"help":[]}
        {"event":"task.finished","task":"//libs/core:build","part_of":null,"outcome":"hit","source":"local","action":"0a7c84d92f24cc0908f0c9c09eae9856428211671343e28ba9432af9d004a4d7","outputs":"76f0654b7a179e3b720f54eb9fb147168baaa67ebb652d1688658466ea137acf","isolation":"namespaces","duration_ms":3,"why":[],"attempts":0,"flaky":false,"failure":null,"because_of":null,"notes":[]}
        {"event":"task.started","task":"//libs/ui:build","why":[{"field":"input","name":"src/button.ts","change":"changed"},{"field":"env","name":"NODE_ENV","change":"\"test\" → \"production\""}],"expected_ms":1100,"slot":0}
        {"event":"task.started","task":"//apps/web:test","why":[{"field":"input","name":"src/button.ts","change":"changed"},{"field":"env","name":"NODE_ENV","change":"\"test\" → \"production\""}],"expected_ms":null,"slot":1}
        {"event":"task.finished","task":"//libs/ui:build","part_of":null,"outcome":"ran","source":null,"action":"4e4d6f4f8618297f42b23d10472a3d99ce4f6a245e05baf24f9032023034e603","outputs":"76f0654b7a179e3b720f54eb9fb147168baaa67ebb652d1688658466ea137acf","isolation":"namespaces","duration_ms":1200,"why":[{"field":"input","name":"src/button.ts","change":"changed"},{"field":"env","name":"NODE_ENV","change":"\"test\" → \"production\""}],"attempts":1,"flaky":false,"failure":null,"because_of":null,"notes":[{"severity":"warning","message":"`//libs/ui:build` wrote `cache.tmp`, which is not an output","places":[],"help":["declare it as `scratch`"]}]}
        {"event":"task.finished","task":"//apps/web:test","part_of":null,"outcome":"failed","source":null,"action":"411e20bb814d999f6ab3dfa9e8e3e6e0cde5e16b13e17dab578acae3e4d1d2ed","outputs":null,"isolation":"namespaces","duration_ms":400,"why":[{"field":"input","name":"src/button.ts","change":"changed"},{"field":"env","name":"NODE_ENV","change":"\"test\" → \"production\""}],"attempts":1,"flaky":false,"failure":{"cause":"exit code 2","exit":{"kind":"code","code":2},"diagnostics":[{"severity":"warning","message":"declared output `junit.xml` was not made","places":[{"path":"apps/web/drystone.toml","line":3,"column":12,"text":"declared here"}],"help":["write the report even when a test fails"]}]},"because_of":null,"notes":[]}
        {"event":"task.finished","task":"//apps/web:image","part_of":null,"outcome":"skipped","source":null,"action":null,"outputs":null,"isolation":null,"duration_ms":0,"why":[],"attempts":0,"flaky":false,"failure":null,"because_of":"//apps/web:test","notes":[]}
        {"event":"task.finished","task":"//apps/web:deploy","part_of":null,"outcome":"skipped","source":null,"action":null,"outputs":null,"isolation":null,"duration_ms":0,"why":[],"attempts":0,"flaky":false,"failure":null,"because_of":"//apps/web:test","notes":[]}
        {"event":"run.finished","ok":false,"interrupted":false,"hit":1,"ran":1,"failed":1,"skipped":2,"cancelled":0,"duration_ms":3200,"saved_ms":1000,"critical_path":[{"task":"//libs/ui:build","duration_ms":1200},{"task":"//apps/web:test","duration_ms":400}]}
        "#);
    }

    #[test]
    fn every_line_is_what_the_schema_says() {
        let schema = event_schema();
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        for line in lines() {
            let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            let problems: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(problems.is_empty(), "{line}: {problems:?}");
        }
        assert!(!validator.is_valid(&serde_json::json!({"event": "run.paused"})));
    }
}
