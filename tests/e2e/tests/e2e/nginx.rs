//! A real nginx on the way to the server.

use synclayer_e2e::host::Host;

use crate::middlebox::{self, Middlebox};

/// Starts one in front of a server; `None` where the test has to be skipped. `root` is what stands
/// behind the server's address in `proxy_pass`: with a path, nginx makes paths normal.
fn nginx(host: &Host, root: &str, idle_timeout: &str) -> Option<Middlebox> {
    let args = &["-p", ".", "-c", middlebox::CONFIG, "-e", "error.log"];
    let server = host.address();
    Middlebox::start("nginx", args, |address| {
        format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log;
             events {{}}
             http {{
                 access_log off;
                 client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                 uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                 map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
                 server {{
                     listen {address};
                     location / {{
                         proxy_pass http://{server}{root};
                         proxy_http_version 1.1;
                         proxy_set_header Upgrade $http_upgrade;
                         proxy_set_header Connection $connection_upgrade;
                         proxy_read_timeout {idle_timeout};
                     }}
                 }}
             }}"
        )
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_name_travels_through_nginx() {
    for root in ["", "/"] {
        let host = Host::start().await;
        let Some(nginx) = nginx(&host, root, "60s") else { return };
        middlebox::any_name_travels(&nginx, &host).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_where_nginx_cuts_idle_connections() {
    let host = Host::start().await;
    let Some(nginx) = nginx(&host, "", "1s") else { return };
    middlebox::nothing_is_lost_where_idle_connections_are_cut(&nginx, &host).await;
}
