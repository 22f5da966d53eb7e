//! Loads the programs and attaches them.
//!
//! In:  the object that the build left, the pinned maps, a pod for per-pod programs.
//! Out: pinned links. No link or program is held open: a pin is all that keeps one.
//! Invariant: each start loads its own code against the maps of the layout; an upgrade changes code without a gap.

use super::pins::{self, Pins};
use super::{Hook, SteerError};
use crate::sys::netns::NetNs;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, LinkOrder, SchedClassifier, SkLookup, TcAttach, TcAttachType};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use mesh_common::map::PodConfig;
use mesh_common::pin;
use std::ffi::CString;
use std::fs::File;
use std::io;

/// The compiled programs.
pub static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh"));

/// What is written into a per-pod program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Constants {
    pub(super) pod: PodConfig,
    pub(super) leaving: bool,
}

/// The links of a pod in this mode, by their programs' names.
pub(super) const fn of_pod(hook: &Hook) -> &'static [&'static str] {
    match hook {
        Hook::Cgroup(_) => &[pin::LOOKUP],
        Hook::Tcx => &[pin::LOOKUP, pin::TC_EGRESS, pin::TC_LO],
    }
}

/// The links of the node in this mode.
pub(super) const fn of_node(hook: &Hook) -> &'static [&'static str] {
    match hook {
        Hook::Cgroup(_) => &[pin::CONNECT4, pin::CONNECT6],
        Hook::Tcx => &[],
    }
}

/// Reads the object, and makes or opens its maps. No program is in the kernel yet.
pub(super) fn load(pins: &Pins, constants: Option<Constants>) -> Result<Ebpf, SteerError> {
    let mut loader = EbpfLoader::new();
    for map in pin::MAPS {
        loader.map_pin_path(map, pins.node(map));
    }
    let leaving = constants.map(|constants| u32::from(constants.leaving));
    if let (Some(constants), Some(leaving)) = (&constants, &leaving) {
        loader.override_global(pin::POD, &constants.pod, true).override_global(pin::LEAVING, leaving, true);
    }
    loader.load(OBJECT).map_err(|source| SteerError::Load { source: Box::new(source) })
}

/// Attaches one of the node's programs to the cgroup.
pub(super) fn attach_to_cgroup(
    object: &mut Ebpf,
    pins: &Pins,
    name: &'static str,
    cgroup: &File,
) -> Result<(), SteerError> {
    let program: &mut CgroupSockAddr = program(object, name)?;
    let refused = failed(name);
    program.load().map_err(refused)?;
    // A link shares its hook with others whatever the mode; the kernel refuses one that asks for it.
    let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(refused)?;
    let link: FdLink = program.take_link(id).map_err(refused)?.try_into().map_err(link_failed(name))?;
    pins::replace(link, &pins.node(name))
}

/// Attaches one of a pod's programs to its namespace, or to a device in it.
pub(super) fn attach_to_pod(
    object: &mut Ebpf,
    path: &std::path::Path,
    name: &'static str,
    (ns, ifname): (&NetNs, &str),
) -> Result<(), SteerError> {
    let refused = failed(name);
    let link: FdLink = if name == pin::LOOKUP {
        let program: &mut SkLookup = program(object, name)?;
        program.load().map_err(refused)?;
        let id = program.attach(ns).map_err(refused)?;
        program.take_link(id).map_err(refused)?.into()
    } else {
        let (device, attach_type) =
            if name == pin::TC_LO { ("lo", TcAttachType::Ingress) } else { (ifname, TcAttachType::Egress) };
        let device = CString::new(device).map_err(io::Error::from).map_err(|error| refused(error.into()))?;
        let program: &mut SchedClassifier = program(object, name)?;
        program.load().map_err(refused)?;
        let id = ns
            .enter(|| Ok(program.attach(device.as_c_str(), TcAttach::Tcx { attach_type, order: LinkOrder::first() })))
            .map_err(|error| refused(error.into()))?
            .map_err(refused)?;
        program.take_link(id).map_err(refused)?.try_into().map_err(link_failed(name))?
    };
    pins::replace(link, path)
}

fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, SteerError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let missing = || failed(name)(io::Error::from(io::ErrorKind::NotFound).into());
    object.program_mut(name).ok_or_else(missing)?.try_into().map_err(failed(name))
}

fn failed(name: &'static str) -> impl Fn(aya::programs::ProgramError) -> SteerError + Copy {
    move |source| SteerError::Program { name, source: Box::new(source) }
}

fn link_failed(name: &'static str) -> impl Fn(aya::programs::links::LinkError) -> SteerError + Copy {
    move |source| failed(name)(io::Error::other(source).into())
}
