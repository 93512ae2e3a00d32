//! What a person sees who has started a member on a terminal: three lines under those of the log, once
//! it serves. On anything but a terminal there is the log alone, for programs read that.

use std::io::{IsTerminal, Write};
use std::path::Path;

use crate::VERSION;
use crate::config::Config;

/// Tells whoever sits before the terminal, if there is one.
pub(crate) fn greet(config: &Config) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        // If it is gone, nobody has to be told.
        let _ = stderr.write_all(lines(config).as_bytes());
    }
}

fn lines(config: &Config) -> String {
    let data = Path::new(&config.data_dir);
    let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let address = config.listen_client_urls.first();
    let address = address.map(ToString::to_string).unwrap_or_default();
    let certificates = match address.starts_with("https:") || address.starts_with("unixs:") {
        true => " --cacert=FILE",
        false => "",
    };
    format!(
        "\netcd {VERSION} (retcd): member {} serves; its data is in {}\n\
         clients connect to {address}; Ctrl-C stops it, and it goes on from there when it is started again\n\
         try it: etcdctl --endpoints={address}{certificates} put hello world && etcdctl --endpoints={address}{certificates} get hello\n",
        config.name,
        data.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_what_it_is_where_its_data_is_and_how_to_try_it() {
        let mut config = Config::from_table();
        config.name = "m1".to_owned();
        config.data_dir = "/var/lib/etcd".to_owned();
        let text = lines(&config);
        assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 3);
        for part in [
            "member m1 serves; its data is in /var/lib/etcd\n",
            "clients connect to http://localhost:2379;",
            "etcdctl --endpoints=http://localhost:2379 put hello world",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        config.listen_client_urls =
            vec![crate::config::url::Url::parse("https://127.0.0.1:1").unwrap()];
        assert!(lines(&config).contains("--endpoints=https://127.0.0.1:1 --cacert=FILE put"));
    }
}
