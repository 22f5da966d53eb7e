//! The plugin's configuration, the previous plugin's result in it, and `CNI_ARGS`.
//!
//! Invariant: no input panics; a result that is printed has the version asked for, and the same addresses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_cni::config::{Config, Version};
use mesh_cni::env::Environment;
use mesh_cni::prev_result::PrevResult;
use serde_json::Value;
use serde_json::value::RawValue;

fuzz_target!(|input: &[u8]| {
    let args = Some(String::from_utf8_lossy(input).into_owned());
    if let Ok(Some(pod)) = (Environment { args, ..Environment::default() }).pod() {
        assert!(pod.namespace.len() <= 63 && pod.name.len() <= 253);
    }
    let Ok(config) = Config::parse(input) else { return };
    if let Ok(settings) = &config.settings {
        assert!(settings.socket.is_absolute() && !settings.timeout.is_zero());
    }
    let _ = config.valid_attachments();
    let Ok(result) = PrevResult::new(config.prev_result) else { return };
    let addresses = result.addresses("eth0").ok();
    for version in Version::ALL {
        let Ok(printed) = result.print(version) else { continue };
        // A number that fits into no float is passed on as it came, and is JSON all the same.
        if let Ok(value) = serde_json::from_str::<Value>(&printed) {
            assert_eq!(value["cniVersion"], version.as_str());
        }
        let again = PrevResult::new(Some(RawValue::from_string(printed).expect("what is printed is JSON")));
        let again = again.expect("it is there").addresses("eth0").ok();
        assert!(addresses.is_none() || again == addresses);
    }
});
