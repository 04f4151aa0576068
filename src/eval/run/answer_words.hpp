#pragma once
// What the words around a letter mean to a reader of answers, in the languages that models answer in.

#include <set>
#include <string_view>

namespace steer::eval::detail {

using Words = std::set<std::string_view>;

inline const Words kAnswer{"answer",   "answers",   "antwort",  "respuesta", "réponse",  "reponse",
                           "risposta", "resposta",  "svar",     "svaret",    "ответ",    "cevap",
                           "vastaus",  "odpowiedź", "antwoord", "lösung",    "solution", "ans"};
inline const Words kLabel{"option",    "choice",        "letter", "alternative", "opción",    "opcion",
                          "opzione",   "opção",         "lettre", "letra",       "buchstabe", "auswahl",
                          "selection", "choose_option", "ответ",  "вариант",     "optie",     "candidate"};
inline const Words kCopula{"is",  "be", "was", "must", "should", "would", "will", "it's",   "ist",     "lautet", "es",
                           "est", "è",  "é",   "är",   "er",     "seems", "sei",  "equals", "remains", "becomes"};
inline const Words kFiller{
    "the",      "therefore", "thus",       "then",      "hence",    "so",      "here",     "clearly", "probably",
    "likely",   "simply",    "just",       "indeed",    "surely",   "correct", "right",    "best",    "final",
    "most",     "my",        "la",         "le",        "el",       "die",     "der",      "das",     "correcta",
    "correct",  "still",     "now",        "have",      "has",      "to",      "also",     "daher",   "donc",
    "most",     "only",      "definitely", "obviously", "be",       "proper",  "richtige", "bonne",   "correcto",
    "corretta", "correta",   "always",     "this",      "question", "can",     "problem",  "above",   "option's",
    "in",       "fact",      "actually",   "evidently"};
inline const Words kChoose{"pick",  "choose",  "chose", "select", "selected", "chosen",    "picked",  "choosing",
                           "wähle", "choisis", "elijo", "scelgo", "escolho",  "selecting", "picking", "mark"};
inline const Words kChooseWith{"go", "going", "opt", "stay", "stick", "settle", "vote", "went"};
inline const Words kThink{"think", "believe", "guess", "say", "suspect"};
inline const Words kConclude{"so",   "therefore", "thus",  "hence",      "ergo",
                             "also", "donc",      "daher", "conclusion", "making"};
inline const Words kHeading{"final", "result",    "conclusion", "verdict", "decision",
                            "pick",  "selection", "response",   "guess"};
inline const Words kLeaves{"leaves", "leaving", "leave"};
inline const Words kMatches{"matches", "match", "matching", "corresponds", "corresponding"};
inline const Words kNot{"not",      "nicht",     "no",       "pas",   "non",    "never",   "cannot",
                        "can't",    "isn't",     "wasn't",   "don't", "won't",  "neither", "nor",
                        "wouldn't", "shouldn't", "couldn't", "nie",   "não",    "kein",    "keine",
                        "doesn't",  "didn't",    "except",   "не",    "aren't", "rather",  "unlike"};
inline const Words kWrong{"wrong",      "incorrect", "false",      "impossible", "excluded", "ruled",      "falsch",
                          "irrelevant", "out",       "eliminated", "invalid",    "unlikely", "implausible"};
inline const Words kRight{"correct", "right", "best", "answer", "richtig", "correcta"};
inline const Words kHearsay{"some",  "many",    "people", "one",     "others", "students", "someone",
                            "most",  "they",    "you",    "if",      "might",  "may",      "could",
                            "going", "tempted", "unless", "whether", "had",    "first",    "were"};
inline const Words kAfterLetter{"because",  "since", "as",   "for",   "due",  "which",  "given",   "here", "though",
                                "although", "but",   "and",  "or",    "not",  "rather", "instead", "in",   "based",
                                "again",    "then",  "weil", "da",    "car",  "porque", "parce",   "und",  "oder",
                                "is",       "by",    "with", "after", "so",   "too",    "at",      "ou",   "o",
                                "y",        "et",    "e",    "would", "must", "seems",  "if"};
inline const Words kLink{"and", "or", "und", "oder", "o", "y", "et", "ou", "e", "as", "nor"};
inline const Words kVerb{"is",    "are", "was",    "were",  "has",  "have",    "would", "says",
                         "gives", "can", "cannot", "seems", "does", "doesn't", "isn't"};

}  // namespace steer::eval::detail
