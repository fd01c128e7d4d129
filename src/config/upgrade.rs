//! Configurations of earlier versions of the program, as JSON: they travel in model files.

use serde_json::{Map, Value, json};

/// Makes a configuration of version 1 one of version 2: keys that were added get the value that means what
/// version 1 did. What is not as expected stays, for the reader to complain about.
pub fn upgrade(config: &mut Value) {
    let mut section = |name: &str, change: &dyn Fn(&mut Map<String, Value>)| {
        if let Some(Value::Object(section)) = config.get_mut(name) {
            change(section);
        }
    };
    section("backbone", &|backbone| {
        if let Some(norm) = backbone.get("norm").cloned() {
            backbone.insert("tail_norm".into(), norm);
        }
    });
    section("rpn", &|rpn| {
        rpn.insert("channels".into(), json!(0));
    });
    section("roi", &|roi| {
        roi.insert("max_per_class".into(), json!(0));
    });
    section("input", &|input| {
        if let (Some(short), Some(long)) = (input.remove("short_side"), input.remove("long_side")) {
            let resize = json!({ "kind": "short_side", "short_side": short, "long_side": long });
            input.insert("resize".into(), resize);
        }
    });
    section("train", &|train| {
        let ones = json!({ "objectness": 1.0, "rpn_box": 1.0, "class": 1.0, "box": 1.0 });
        train.insert("loss_weights".into(), ones);
        train.insert("decay_heads".into(), json!(true));
        train.insert("drop_path_steps".into(), json!(0));
    });
}
