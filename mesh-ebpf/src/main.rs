//! The mesh's programs in the kernel: one module for each kind of hook.
//!
//! In:  maps that the daemon fills, and for per-pod programs the pod itself, written in at load.
//! Out: socket marks, chosen listeners, and a counted fate for each connection.
//! Invariant: each program parses, then decides without side effects, then acts; a verdict that is
//! computed is also counted.
#![no_std]
#![no_main]

mod connect;
mod lookup;
mod maps;
mod redirect;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
