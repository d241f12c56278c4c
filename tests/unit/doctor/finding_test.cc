#include "doctor/finding.h"

#include <gtest/gtest.h>

#include <future>
#include <stdexcept>

namespace bitctl {
namespace {

using enum Finding::Verdict;

Mono soon(int ms) { return system_clock().monotonic() + std::chrono::milliseconds(ms); }

TEST(RunningChecks, AllAnswersInTheirOrder) {
  RunningChecks checks({{"a",
                         [] {
                           return Finding{ok, "a", "fine", ""};
                         }},
                        {"b", []() -> Finding { throw std::runtime_error("broken"); }}});
  const auto findings = checks.wait_until(soon(60'000));
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_EQ(findings[0].text, "fine");
  EXPECT_EQ(findings[1].verdict, failure);
  EXPECT_EQ(findings[1].text, "broken");
}

TEST(RunningChecks, AStalledOneIsAFailureAndIsNotWaitedFor) {
  auto stalled = std::make_shared<std::promise<void>>();
  RunningChecks checks({{"a",
                         [] {
                           return Finding{ok, "a", "", ""};
                         }},
                        {"disk",
                         [stalled] {
                           stalled->get_future().wait();
                           return Finding{ok, "disk", "", ""};
                         }},
                        {"c", [] {
                           return Finding{ok, "c", "", ""};
                         }}});
  std::vector<Finding> findings;
  while (findings.size() < 2) findings = checks.wait_until(soon(20));
  ASSERT_EQ(findings.size(), 2u) << "what comes after it is not made";
  EXPECT_EQ(findings[1].check, "disk");
  EXPECT_EQ(findings[1].verdict, failure);
  stalled->set_value();
  EXPECT_EQ(checks.wait_until(soon(60'000)).size(), 3u) << "control: it would have gone on";
}

TEST(Finding, ALineHoldsNothingThatSteersATerminal) {
  EXPECT_EQ(line_of({warn, "folder", "/tmp/\x1b[2J", "move"}).find('\x1b'), std::string::npos);
  EXPECT_EQ(line_of({warn, "space", "1 GiB free", "free some"}), "warn  space       1 GiB free; free some");
}

}  // namespace
}  // namespace bitctl
