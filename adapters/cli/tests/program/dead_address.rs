//! A host one of whose addresses is dead: a home router whose IPv6 leads nowhere.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{HomeDir, Server, command, finish, skipped};

/// The host's name in the network of its own.
const HOST: &str = "dual.test";

/// A network of its own, with a way to this one by IPv4 and one by IPv6 where everything vanishes.
struct Namespace(String);

impl Namespace {
    /// Makes one; `None` where this machine does not let us.
    fn make() -> Option<Self> {
        let name = format!("sl{}", std::process::id());
        let (here, there) = (format!("{name}a"), format!("{name}b"));
        // for documentation: nothing is there
        let (us, them, dead) = ("198.18.77.1", "198.18.77.2", "2001:db8:77::5");
        let made = Self(name.clone());
        let script = format!(
            "set -e
             ip netns add {name}
             ip link add {here} type veth peer name {there}
             ip link set {there} netns {name}
             ip addr add {us}/24 dev {here}
             ip link set {here} up
             ip -n {name} addr add {them}/24 dev {there}
             ip -n {name} link set {there} up
             ip -n {name} link set lo up
             ip -n {name} -6 addr add 2001:db8:77::2/64 dev {there} nodad
             ip -n {name} -6 neigh replace {dead} lladdr 02:00:00:00:00:01 dev {there}
             mkdir -p /etc/netns/{name}
             printf '127.0.0.1 localhost\\n{dead} {HOST}\\n{us} {HOST}\\n' > /etc/netns/{name}/hosts"
        );
        let ended = Command::new("sh").args(["-c", &script]).output().ok()?;
        ended.status.success().then_some(made)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // what was not made can't be removed
        let _ = Command::new("ip").args(["link", "del", &format!("{}a", self.0)]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
        let _ = fs::remove_dir_all(format!("/etc/netns/{}", self.0));
    }
}

#[test]
fn a_dead_ipv6_address_holds_nobody_up() {
    let Some(network) = Namespace::make() else {
        return skipped("a network namespace can't be made here");
    };
    let home = HomeDir::new();
    let tokens = ["--token", "ann=s3cret"];
    let server = Server::start_with(&home.dir("server"), "198.18.77.1:0", &tokens);
    let port = server.address.rsplit(':').next().unwrap();
    for way in [&["--realtime-only"][..], &["--poll-only"], &[]] {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &network.0]).arg(command().get_program());
        inside.args(["save", "notes", "{}", "--timeout", "30", "--token", "s3cret"]).args(way);
        inside.args(["--allow-insecure", "--server", &format!("http://{HOST}:{port}"), "--data"]);
        let began = Instant::now();
        finish(inside.arg(home.dir("replica"))).ends_with(0);
        assert!(began.elapsed() < Duration::from_secs(8), "{way:?}: {:?}", began.elapsed());
    }
}
