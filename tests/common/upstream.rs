//! An archive outside that says when its files were made, in front of the real
//! one: nginx in the rack's network, under the real one's name. What was
//! fetched once it keeps as files, so that nothing there changes; each answer
//! has `Last-Modified`, and a question with it is answered 304. Where the
//! archive that is reachable gives no validators, this is the only way to see
//! what a cache does with them.

use super::rack::{Rack, until};
use provision::image::sources;
use provision::lab::net::UPLINK_DNS;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

pub struct Upstream {
    nginx: Child,
    dir: PathBuf,
}

/// What was asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub requests: usize,
    /// Answered with 304.
    pub unchanged: usize,
    /// Of files that were sent.
    pub bytes: u64,
}

impl Upstream {
    /// Starts it; the rack's build server is to be started afterwards, since
    /// names are looked up anew by a new process.
    pub fn start(rack: &Rack) -> Self {
        let dir = rack.dir.path().join("upstream");
        std::fs::create_dir_all(&dir).unwrap();
        let archives = sources::archives(Path::new("/etc/apt"));
        let hosts: Vec<&str> = archives
            .iter()
            .map(|a| a.strip_prefix("http://").expect("apt's archives are asked by http"))
            .filter_map(|a| a.split(['/', ':']).next())
            .collect();
        // `ip netns exec` puts it in the place of /etc/hosts; it goes with the rack.
        let etc = PathBuf::from("/etc/netns").join(rack.lab.namespace());
        let names = format!("127.0.0.1 localhost {}\n", hosts.join(" "));
        std::fs::write(etc.join("hosts"), names).unwrap();
        let conf = dir.join("nginx.conf");
        std::fs::write(&conf, configuration(&dir)).unwrap();
        let mut c = rack.lab.command("nginx");
        c.arg("-p").arg(&dir).arg("-e").arg(dir.join("error.log")).arg("-c").arg(&conf);
        c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let up = Self { nginx: c.spawn().unwrap(), dir };
        until("nginx listens", 20, || up.dir.join("nginx.pid").exists());
        up
    }

    /// All that was asked for so far.
    pub fn asked(&self) -> Asked {
        let log = std::fs::read_to_string(self.dir.join("access.log")).unwrap();
        let mut all = Asked::default();
        for line in log.lines() {
            let mut words = line.split(' ');
            let (status, bytes) = (words.next().unwrap(), words.next().unwrap());
            all.requests += 1;
            all.unchanged += usize::from(status == "304");
            all.bytes += if status == "200" { bytes.parse::<u64>().unwrap() } else { 0 };
        }
        all
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Its worker goes with it when it is asked to stop.
        let pid = self.nginx.id().to_string();
        let _ = std::process::Command::new("kill").arg(&pid).status();
        let _ = self.nginx.wait();
    }
}

/// In front, files; behind, the archive, whose answers are given a date. The
/// one in front keeps it with the file.
fn configuration(dir: &Path) -> String {
    let d = dir.display();
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {d}/nginx.pid;\n\
         events {{}}\n\
         http {{\n\
         log_format short '$status $body_bytes_sent $request_uri';\n\
         access_log off;\n\
         proxy_http_version 1.1;\n\
         client_body_temp_path {d}/body;\nproxy_temp_path {d}/coming;\n\
         default_type application/octet-stream;\n\
         resolver {UPLINK_DNS} ipv6=off;\n\
         server {{\n\
           listen 127.0.0.1:80;\n\
           access_log {d}/access.log short;\n\
           root {d}/files/$host;\n\
           location / {{ try_files $uri @away; }}\n\
           location @away {{\n\
             proxy_pass http://127.0.0.1:8079;\n\
             proxy_set_header Host $host;\n\
             proxy_set_header Range '';\n\
             proxy_set_header If-Modified-Since '';\n\
             proxy_store {d}/files/$host$uri;\n\
           }}\n\
         }}\n\
         server {{\n\
           listen 127.0.0.1:8079;\n\
           location / {{\n\
             proxy_pass http://$host$request_uri;\n\
             proxy_set_header Host $host;\n\
             proxy_buffering off;\n\
             add_header Last-Modified 'Sun, 01 Nov 2026 00:00:00 GMT';\n\
           }}\n\
         }}\n\
         }}\n"
    )
}
