//! TEMP stage
use crate::figures::Way;
use crate::haproxy;
use crate::loads::{Meshload, Pair};
use crate::usage::Processes;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) struct Stage {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) meshload: Meshload,
    children: Vec<Child>,
}

fn sh(text: &str) {
    Command::new("sh").args(["-c", text]).status().unwrap();
}
fn inside(ns: &str, program: &str) -> Command {
    let mut c = Command::new("ip");
    c.args(["netns", "exec", ns, program]);
    c
}

impl Stage {
    pub(crate) fn up(programs: &Path, work: &Path, ways: &[Way]) -> anyhow::Result<Self> {
        let meshload = programs.join("meshload");
        let mut stage = Self { pairs: vec![], meshload: Meshload(meshload.clone()), children: vec![] };
        for (i, &way) in ways.iter().enumerate() {
            if way == Way::Mesh {
                continue;
            }
            let (c, s) = (format!("dmc{i}"), format!("dms{i}"));
            sh(&format!(
                "ip netns del {c}; ip netns del {s}; ip netns add {c}; ip netns add {s}; ip link add eth0 netns {c} type veth peer name eth0 netns {s}; ip -n {c} addr add 10.9.{i}.1/24 dev eth0; ip -n {s} addr add 10.9.{i}.2/24 dev eth0; for n in {c} {s}; do ip -n $n link set lo up; ip -n $n link set eth0 up; done"
            ));
            let mut pids = vec![];
            let mut go = |stage: &mut Self, ns: &str, program: &str, args: &[&str]| {
                let child = inside(ns, program).args(args).stdout(Stdio::null()).spawn().unwrap();
                let id = child.id();
                stage.children.push(child);
                id
            };
            pids.push(go(&mut stage, &s, meshload.to_str().unwrap(), &["serve"]));
            pids.push(go(&mut stage, &s, "iperf3", &["-s", "-p", "5201"]));
            let ip = format!("10.9.{i}.2");
            let mut proxies = vec![];
            let (http, bulk);
            if way == Way::Haproxy {
                let files = haproxy::prepare(&work.join("haproxy"), ip.parse()?, [8080, 5201])?;
                proxies.push(go(&mut stage, &c, "haproxy", &["-db", "-f", files.client.to_str().unwrap()]));
                proxies.push(go(&mut stage, &s, "haproxy", &["-db", "-f", files.server.to_str().unwrap()]));
                http = "127.0.0.1:18080".parse()?;
                bulk = "127.0.0.1:15201".parse()?;
            } else {
                http = format!("{ip}:8080").parse()?;
                bulk = format!("{ip}:5201").parse()?;
            }
            stage.pairs.push(Pair {
                way,
                client: Box::new(move |p| inside(&c, p)),
                http,
                bulk,
                processes: Processes { proxies, servers: pids },
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        Ok(stage)
    }
    pub(crate) fn write_pods(&self, _n: usize) -> anyhow::Result<()> {
        Ok(())
    }
    pub(crate) fn remove_pods(&self) -> anyhow::Result<()> {
        Ok(())
    }
    pub(crate) fn await_workloads(&self, _n: usize, _p: Duration) -> anyhow::Result<()> {
        Ok(())
    }
}
impl Drop for Stage {
    fn drop(&mut self) {
        for c in &mut self.children {
            let _ = c.kill();
            let _ = c.wait();
        }
        for i in 0..3 {
            sh(&format!("ip netns del dmc{i} 2>/dev/null; ip netns del dms{i} 2>/dev/null"));
        }
    }
}
