// Whole messages with descriptors over AF_UNIX/SOCK_SEQPACKET: one send is one receive, order kept, nothing
// blocks.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace bitctl {

constexpr size_t kMaxMessageBytes = 64 * 1024;
constexpr size_t kMaxMessageFds = 16;

struct Message {
  std::string bytes;    // empty: the peer has closed
  std::vector<Fd> fds;  // close-on-exec
  bool closed() const { return bytes.empty(); }
};

struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
};

Result<std::pair<Fd, Fd>> seqpacket_pair();
// Binds and listens. The path's folder must exist; a socket left there by a dead process is replaced.
Result<Fd> seqpacket_listen(const std::string& path);
Result<Fd> seqpacket_accept(int listener);
Result<Fd> seqpacket_connect(const std::string& path);

// Error::timeout where the socket's buffer is full (it is never waited for), Error::io where the peer is
// gone.
Status send_message(int fd, std::string_view bytes, const std::vector<int>& fds = {});
// Error::timeout where nothing is there. A message cut by the kernel or too long is Error::invalid, with
// every descriptor it brought closed.
Result<Message> receive_message(int fd);
// Waits until a message is there, at most timeout_ms (-1: for ever).
Result<Message> await_message(int fd, int timeout_ms);

Result<Peer> peer_of(int fd);

}  // namespace bitctl
