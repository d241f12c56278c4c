#include "config/schemas.h"

#include <gtest/gtest.h>

#include <set>

#include "base/strict_json.h"
#include "config/schema_check.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

TEST(Schemas, AreTheFilesByteForByteAndAllOfThem) {
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(BITCTL_SOURCE_DIR "/schemas")) {
    const std::string file = entry.path().filename();
    const size_t suffix = file.find(".schema.json");
    if (suffix == std::string::npos) continue;
    files.insert(file.substr(0, suffix));
    EXPECT_EQ(embedded_schema(file.substr(0, suffix)), read_text(entry.path())) << file;
  }
  std::set<std::string> names;
  for (const auto name : embedded_schema_names()) names.emplace(name);
  EXPECT_EQ(names, files);
  EXPECT_GE(files.size(), 3u);
  EXPECT_EQ(embedded_schema("config.v9"), "");
}

TEST(Schemas, AreStrictJson) {
  for (const auto name : embedded_schema_names())
    EXPECT_TRUE(parse_strict_json(embedded_schema(name))) << name;
}

Json run_json() {
  return Json::parse(R"({"argv": ["python", "train.py"], "cwd": "/w", "name": "tiny",
    "labels": {"profile": "Unknown", "dataset": "Unknown"}, "config": "/w/config.yaml", "git_commit": null,
    "machine": {"hostname": "h", "os": "Linux", "cpus": 2, "memory_bytes": 1}, "boot_id": "b",
    "bitctl_version": "0.1.0", "created": 1767225600})");
}

std::vector<std::string> run_problems(const std::string& patch) {
  Json json = run_json();
  json.merge_patch(Json::parse(patch));
  return check_schema("run.v1", json);
}

using Lines = std::vector<std::string>;

TEST(RunSchema, TakesAWholeRunAndRefusesLess) {
  EXPECT_EQ(run_problems("{}"), Lines{});
  EXPECT_EQ(run_problems(R"({"config": null, "git_commit": "0123456789012345678901234567890123456789"})"),
            Lines{"'config' is missing in the top level"});
  EXPECT_EQ(run_problems(R"({"git_commit": "dirty"})").size(), 1u);
  EXPECT_EQ(run_problems(R"({"created": 1.5})"),
            Lines{"created: expected a whole number of at least 0, got 1.5"});
  EXPECT_EQ(run_problems(R"({"argv": []})"), Lines{"argv: expected a list, got an empty list"});
  EXPECT_EQ(run_problems(R"({"labels": {"dataset": null}})"), Lines{"'dataset' is missing in labels"});
  EXPECT_EQ(run_problems(R"({"machine": {"cpu": 2}})").size(), 1u);
  EXPECT_EQ(run_problems(R"({"cwd": "relative"})").size(), 1u);
}

Lines event_problems(const char* row) { return check_schema("event.v1", Json::parse(row)); }

TEST(EventSchema, TakesTheFieldsOfAKindAndNoOthers) {
  EXPECT_EQ(event_problems(R"({"t": 1.25, "attempt": 0, "kind": "spawned", "pid": 1})"), Lines{});
  EXPECT_EQ(event_problems(R"({"t": 1, "attempt": 1, "kind": "restamped"})"), Lines{});
  EXPECT_EQ(event_problems(R"({"t": -1, "attempt": 1, "kind": "restamped"})"),
            Lines{"t: expected a number of at least 0, got -1"});
  EXPECT_EQ(event_problems(R"({"t": 1, "attempt": 1})"), Lines{"'kind' is missing in the top level"});
  EXPECT_EQ(event_problems("[]"), Lines{"the top level: expected a map, got an empty list"});
  EXPECT_NE(event_problems(R"({"t": 1, "attempt": 1, "kind": "spawned"})"), Lines{}) << "pid is missing";
  EXPECT_NE(event_problems(R"({"t": 1, "attempt": 1, "kind": "spawned", "pid": 1, "step": 2})"), Lines{});
  EXPECT_NE(event_problems(R"({"t": 1, "attempt": 1, "kind": "spawned", "pid": "1"})"), Lines{});
  EXPECT_NE(event_problems(R"({"t": 1, "attempt": 1, "kind": "span"})"), Lines{});
}

}  // namespace
}  // namespace bitctl
