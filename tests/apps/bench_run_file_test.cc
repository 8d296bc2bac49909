// Run files that `bench run` refuses.

#include "tests/apps/bench_run_fixture.h"

namespace memlane {
namespace {

using nlohmann::json;

/// A change to a run file that makes it wrong.
struct BadRun {
  std::string name;
  std::string patch;  ///< JSON patch, as RFC 6902 has it
  Words named;
};

class RefusedRunFile : public BenchRun, public ::testing::WithParamInterface<BadRun> {};

TEST_P(RefusedRunFile, NamesFileAndKey) {
  const json changed = small().patch(json::parse(GetParam().patch));
  expect_refused(words(changed, "out"), Words{"run.json"} + GetParam().named);
}

INSTANTIATE_TEST_SUITE_P(
    Each, RefusedRunFile,
    ::testing::Values(
        BadRun{"UnknownKey", R"([{"op":"add","path":"/lenghts","value":1}])", {"unknown key \"lenghts\""}},
        BadRun{"UnknownKeyInside",
               R"([{"op":"add","path":"/experiments/0/depth","value":1}])",
               {"experiments[0]", "\"depth\"", "depths"}},
        BadRun{"NoTitle", R"([{"op":"remove","path":"/title"}])", {"title", "found nothing"}},
        BadRun{"NoModels", R"([{"op":"replace","path":"/models","value":{}}])", {"models", "at least one"}},
        BadRun{"ModelMissing",
               R"([{"op":"replace","path":"/models/stories","value":"nowhere"}])",
               {"models.stories", "nowhere"}},
        BadRun{
            "TextMissing", R"([{"op":"replace","path":"/texts/story","value":"no.txt"}])", {"texts.story", "no.txt"}},
        BadRun{"NotATextName",
               R"([{"op":"replace","path":"/experiments/0/book","value":"novel"}])",
               {"experiments[0].book", "story", "novel"}},
        BadRun{"NotAMethod",
               R"([{"op":"replace","path":"/experiments/0/methods/1","value":"yarn"}])",
               {"experiments[0].methods[1].label", "yarn"}},
        BadRun{"MethodUnknown",
               R"([{"op":"add","path":"/methods/1/method","value":"yarm:factor=2"}])",
               {"methods[1].method", "yarm"}},
        BadRun{"MethodTwice",
               R"([{"op":"replace","path":"/experiments/0/methods/1","value":"none"}])",
               {"experiments[0].methods[1]", "once"}},
        BadRun{"LabelTwice",
               R"([{"op":"replace","path":"/methods/1/label","value":"none"}])",
               {"methods[1].label", "of its own"}},
        BadRun{"LengthZero",
               R"([{"op":"replace","path":"/experiments/0/lengths","value":[0,5]}])",
               {"experiments[0].lengths[0]", "found 0"}},
        BadRun{"LengthsDescend",
               R"([{"op":"replace","path":"/experiments/0/lengths","value":[512,384]}])",
               {"experiments[0].lengths", "ascend"}},
        BadRun{"LengthHuge",
               R"([{"op":"replace","path":"/experiments/0/lengths","value":[18446744073709551615]}])",
               {"experiments[0].lengths[0]", "18446744073709551615"}},
        BadRun{"DepthOutside",
               R"([{"op":"add","path":"/experiments/0/depths","value":[0.5,1.5]}])",
               {"experiments[0].depths[1]", "0 to 1", "1.5"}},
        BadRun{"TrialsNegative",
               R"([{"op":"replace","path":"/experiments/0/trials","value":-1}])",
               {"experiments[0].trials", "-1"}},
        BadRun{"TrialsOfNoLength",
               R"([{"op":"replace","path":"/experiments/0/trials","value":{"long":1}}])",
               {"experiments[0].trials", "long"}},
        BadRun{"BenchUnknown",
               R"([{"op":"replace","path":"/experiments/0/bench","value":"speed"}])",
               {"experiments[0].bench", "tradeoff", "speed"}},
        BadRun{"TaskUnknown",
               R"([{"op":"add","path":"/experiments/0/task","value":"riddle"}])",
               {"experiments[0].task", "passkey", "riddle"}},
        BadRun{"FillerUnknown",
               R"([{"op":"add","path":"/experiments/0/filler","value":"noise"}])",
               {"experiments[0].filler", "repeated", "noise"}},
        BadRun{"NameIsAPath",
               R"([{"op":"replace","path":"/experiments/0/name","value":"../keys"}])",
               {"experiments[0].name", "../keys"}},
        BadRun{"NoExperiments", R"([{"op":"replace","path":"/experiments","value":[]}])", {"experiments", "array"}},
        BadRun{"TradeoffOfNothing",
               R"([{"op":"add","path":"/experiments/1","value":{"bench":"tradeoff","name":"t","cost":"keys",
                   "against":["keys"]}}])",
               {"experiments[1].cost", "cost experiment", "keys"}}),
    [](const auto& tested) { return tested.param.name; });

TEST_F(BenchRun, RefusesWhatIsNoJson) {
  const std::string file = write("broken.json", "{\"title\": ");
  expect_refused({"bench", "run", file, "--out", path("out")}, {"broken.json", "correct the run file"});
}

}  // namespace
}  // namespace memlane
