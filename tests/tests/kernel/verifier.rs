//! The kernel accepts every program.

use crate::support::{Client, Lab, assert_answer};
use aya::EbpfLoader;
use aya::programs::Program;
use mesh_common::map::{MAPPED_PREFIX, PodConfig};
use mesh_common::pin;
use mesh_node::steer::programs::OBJECT;
use std::collections::BTreeSet;

#[test]
fn the_kernel_accepts_every_program_of_the_object() {
    // Constants decide which instructions the verifier sees.
    let (none, v4, v6) = ([0; 4], [0, 0, MAPPED_PREFIX, 0x0100_410a], [0x6500_00fd, 0, 0, 0x0100_0000]);
    for (address4, address6) in [(none, none), (v4, none), (none, v6), (v4, v6)] {
        for leaving in [0_u32, 1] {
            accepted(PodConfig { address4, address6 }, leaving);
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a program of a new kind must fail here until it is listed")]
fn accepted(pod: PodConfig, leaving: u32) {
    let mut loader = EbpfLoader::new();
    loader.override_global(pin::POD, &pod, true).override_global(pin::LEAVING, &leaving, true);
    let mut object = loader.load(OBJECT).expect("the object loads");
    let found: BTreeSet<String> = object.programs().map(|(name, _)| name.to_owned()).collect();
    let listed: BTreeSet<String> = pin::PROGRAMS.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(found, listed, "every program of the object is listed in pin::PROGRAMS, and so checked here");
    for (name, program) in object.programs_mut() {
        let loaded = match program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            other => panic!("{name}: no suite loads programs of the kind {:?}", other.prog_type()),
        };
        loaded.unwrap_or_else(|error| panic!("{name} with {pod:?}, leaving {leaving}: {error:?}"));
    }
}

#[test]
fn the_object_has_the_maps_that_the_daemon_pins() {
    let object = EbpfLoader::new().load(OBJECT).expect("the object loads");
    let found: BTreeSet<&str> = object.maps().map(|(name, _)| name).filter(|name| !name.starts_with('.')).collect();
    assert_eq!(found, BTreeSet::from(pin::MAPS));
}

#[test]
fn the_lab_itself_connects_the_pods() {
    let lab = Lab::new("lab");
    crate::support::application_everywhere(&lab.b, 8080);
    for address in lab.b.both() {
        assert_answer("application", &lab.a.ns, (address, 8080));
    }
    let dual = Client { dual_stack: true, ..Client::default() };
    assert_eq!(dual.ask(&lab.a.ns, (lab.b.v4, 8080).into()).expect("an answer").who, "application");
}
