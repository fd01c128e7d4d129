//! What differs between two configurations, key by key.

use serde_json::Value;

use super::Config;

impl Config {
    /// One line a key that `other` has otherwise: `train.lr: 0.02 -> 0.5`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let json = |config: &Self| serde_json::to_value(config).expect("plain structs become JSON");
        let mut out = Vec::new();
        compare("", Some(&json(self)), Some(&json(other)), &mut out);
        out
    }
}

fn compare(key: &str, old: Option<&Value>, new: Option<&Value>, out: &mut Vec<String>) {
    if old == new {
        return;
    }
    let (Some(Value::Object(a)), Some(Value::Object(b))) = (old, new) else {
        let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
        out.push(format!("{key}: {} -> {}", shown(old), shown(new)));
        return;
    };
    for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
        let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        compare(&inner, a.get(name), b.get(name), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_changed_key_is_named_with_both_values() {
        let plain = Config::recipe("tiny", &[]).unwrap();
        assert_eq!(plain.differences(&plain), [""; 0]);
        let changes = [
            "train.lr=0.5",
            "anchors.ratios=[1.0]",
            "train.schedule={ kind = \"step\", milestones = [0.5], factor = 0.1 }",
        ];
        let changed =
            Config::recipe("tiny", &changes.map(|change| change.parse().unwrap())).unwrap();
        assert_eq!(
            plain.differences(&changed),
            [
                "anchors.ratios: [0.5,1.0,2.0] -> [1.0]",
                "train.lr: 0.02 -> 0.5",
                "train.schedule.kind: \"cosine\" -> \"step\"",
                "train.schedule.milestones: nothing -> [0.5]",
                "train.schedule.factor: nothing -> 0.1",
            ]
        );
    }
}
