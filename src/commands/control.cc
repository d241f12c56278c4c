#include "commands/control.h"

#include <fmt/format.h>

#include "base/process_id.h"
#include "base/seqpacket.h"
#include "run/history.h"
#include "run/run_state.h"
#include "watch/messages.h"

namespace bitctl {
namespace {

constexpr int kAnswerMs = 10'000;

}  // namespace

tl::unexpected<Error> not_in_progress(const RunFolder& folder) {
  const auto history = read_history(folder.events());
  return fail(ErrorKind::not_found,
              fmt::format("{} is not in progress: {}", folder.id(),
                          history ? describe_the_end(folder, *history) : "it has no history"));
}

Result<ControlConnection> ControlConnection::open(const RunFolder& folder) {
  const auto history = read_history(folder.events());
  if (!history || !is_alive(history->supervisor)) return not_in_progress(folder);
  auto fd = seqpacket_connect(history->socket);
  if (!fd) return forward(std::move(fd));
  ControlConnection connection(std::move(*fd));
  if (auto status = connection.ask({{"type", "hello"}, {"protocol", kTrainerProtocol}, {"role", "control"}});
      !status)
    return forward(std::move(status));
  return connection;
}

Status ControlConnection::ask(const Json& message) {
  if (auto status = send_message(fd_.get(), dump_line(message)); !status) return status;
  const auto answer = await_message(fd_.get(), kAnswerMs);
  if (!answer) return tl::unexpected(answer.error());
  if (answer->closed()) return fail(ErrorKind::io, "the supervisor has ended");
  const auto json = message_from(answer->bytes);
  if (!json) return tl::unexpected(json.error());
  if (get_text(*json, "type") == "refused")
    return fail(ErrorKind::invalid, get_text(*json, "reason", "refused"));
  return {};
}

void ControlConnection::wait_for_the_end() {
  while (true) {
    const auto message = await_message(fd_.get(), -1);
    if (!message || message->closed()) return;
  }
}

}  // namespace bitctl
