#include "run/history_reader.h"

#include "run/events.h"

namespace bitctl {

Status HistoryReader::read(const std::function<void(const Json& row)>& on_row) {
  const auto end = read_events(path_, offset_, [&](const Json& row) {
    history_.apply(row);
    on_row(row);
  });
  if (!end) return tl::unexpected(end.error());
  offset_ = *end;
  return {};
}

}  // namespace bitctl
