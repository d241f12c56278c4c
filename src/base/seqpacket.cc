#include "base/seqpacket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

namespace bitctl {
namespace {

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(ErrorKind::invalid, path + ": longer than a socket path may be (107 bytes)");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Result<Fd> new_socket() {
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno("cannot create a socket");
  return fd;
}

}  // namespace

Result<std::pair<Fd, Fd>> seqpacket_pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
    return fail_errno("cannot create a socket pair");
  return std::pair(Fd(fds[0]), Fd(fds[1]));
}

Result<Fd> seqpacket_listen(const std::string& path) {
  const auto address = address_of(path);
  if (!address) return tl::unexpected(address.error());
  auto fd = new_socket();
  if (!fd) return fd;
  ::unlink(path.c_str());
  if (::bind(fd->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
    return fail_errno("cannot bind " + path);
  if (::listen(fd->get(), 64) != 0) return fail_errno("cannot listen on " + path);
  return fd;
}

Result<Fd> seqpacket_accept(int listener) {
  Fd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return fail_errno("cannot accept a connection");
  return fd;
}

Result<Fd> seqpacket_connect(const std::string& path) {
  const auto address = address_of(path);
  if (!address) return tl::unexpected(address.error());
  auto fd = new_socket();
  if (!fd) return fd;
  if (::connect(fd->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0)
    return fail_errno("cannot connect to " + path);
  return fd;
}

Status send_message(int fd, std::string_view bytes, const std::vector<int>& fds) {
  if (bytes.empty() || bytes.size() > kMaxMessageBytes || fds.size() > kMaxMessageFds)
    return fail(ErrorKind::invalid, "a message has 1 to 65536 bytes and at most 16 descriptors");
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxMessageFds)] = {};
  if (!fds.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(c), fds.data(), sizeof(int) * fds.size());
  }
  while (::sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return fail(ErrorKind::timeout, "the peer does not read", EAGAIN);
    return fail_errno("cannot send a message");
  }
  return {};
}

Result<Message> receive_message(int fd) {
  Message message;
  // Kept, so that a short message costs no page that it does not fill.
  static thread_local std::array<char, kMaxMessageBytes> buffer;
  iovec part{buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxMessageFds)] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ssize_t n = 0;
  while ((n = ::recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return fail(ErrorKind::timeout, "no message", EAGAIN);
    if (errno == ECONNRESET) break;
    return fail_errno("cannot receive a message");
  }
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int received = -1;
      std::memcpy(&received, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
      message.fds.emplace_back(received);
    }
  }
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
    return fail(ErrorKind::invalid, "a message longer than 65536 bytes or with more than 16 descriptors");
  message.bytes.assign(buffer.data(), n > 0 ? static_cast<size_t>(n) : 0);
  return message;
}

Result<Message> await_message(int fd, int timeout_ms) {
  pollfd waiting{fd, POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&waiting, 1, timeout_ms)) < 0 && errno == EINTR) {
  }
  if (ready < 0) return fail_errno("cannot wait for a message");
  if (ready == 0) return fail(ErrorKind::timeout, "no answer", ETIMEDOUT);
  return receive_message(fd);
}

Result<Peer> peer_of(int fd) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0)
    return fail_errno("cannot tell the peer");
  return Peer{credentials.pid, credentials.uid};
}

}  // namespace bitctl
