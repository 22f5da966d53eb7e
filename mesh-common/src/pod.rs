//! Lets map keys and values pass through aya.
#![expect(unsafe_code, reason = "aya requires an unsafe promise about plain data, kept here and nowhere else")]

use crate::map::{ListenerKey, PodConfig};

// SAFETY: `repr(C)`, only integers, no padding; any bit pattern is valid.
unsafe impl aya::Pod for ListenerKey {}
// SAFETY: as above.
unsafe impl aya::Pod for PodConfig {}
