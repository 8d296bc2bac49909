"""Wordings of the synthetic tasks. None of them is the benchmark's (held_out.py; a test checks what is generated)."""

THINGS = ("access code", "secret code", "locker number", "phone number", "room number", "account number", "lucky number",
          "ticket number", "password", "door code", "serial number", "key number", "magic number", "safe combination",
          "badge number", "house number", "secret key", "entry code", "reference number", "licence number", "value", "code", "key")
NAMES = ("Anna Boris Clara David Elena Felix Greta Henry Irene Jonas Karin Louis Maria Nolan Olivia Peter Rosa Simon Tessa Victor "
         "Alice Bruno Carmen Dmitri Esther Frank Gloria Hugo Ingrid Jacob Kate Leon Martha Nina Oscar Paula Quentin Ruth Samuel "
         "Thomas Ursula Vera Walter Xavier Yvonne Zoe Arthur Beatrice Charles Dora Edward Flora George Helen").split()
PLACES = ("Paris London Berlin Madrid Rome Vienna Prague Lisbon Dublin Oslo Athens Cairo Tokyo Delhi Lima Quito Boston Warsaw "
          "Geneva Naples Havana Bristol Oxford Dover Moscow Venice Milan Turin").split()
SYLLABLES = "ba be bo da do du fa fi ga go ka ki ko la le li lo lu ma me mi mo na ne ni no pa pe ra re ri ro sa se si ta te ti to va vi za zo".split()

STATEMENTS = ("The {s} is {v}.", "The {s} is {v}. Do not forget it: {v} is the {s}.", "Remember this: the {s} is {v}.",
              "Please note that the {s} is {v}.", "The {s} is {v}. Keep it in mind. {v} is the {s}.", "Listen: the {s} is {v}.",
              "Know that the {s} is {v}. Again, the {s} is {v}.", "Remember: the {s} is {v}.", "It is written that the {s} is {v}.")
QUESTIONS = ("What is the {s}? The {s} is", "Tell me the {s}. The {s} is", "The {s} is", "Now say what the {s} is. The {s} is",
             "Question: what is the {s}? Answer: the {s} is", "Do you recall the {s}? The {s} is", "As said before, the {s} is")
LIST_FORMS = (("The {t} of {n} is {v}.", "The {t} of {n} is"), ("The {t} for {n} is {v}.", "The {t} for {n} is"),
              ("{n} has the {t} {v}.", "{n} has the {t}"), ("{n}: {v}.", "{n}:"), ("{n} = {v};", "{n} ="),
              ("One {t} for {n} is: {v}.", "One {t} for {n} is:"), ("The {t} of {n} is: {v}.", "The {t} of {n} is:"))
LIST_QUESTIONS = ("", "", "What is the {t} of {n}? ", "Tell me the {t} for {n}. ", "Which {t} belongs to {n}? ", "What about {n}? ")
PREAMBLES = ("Somewhere in this long text a number is given. Read with care and keep it.",
             "A fact stands among many words that do not matter. You will be asked for it at the end.",
             "Below is a long story. Some values are mentioned in it; later there will be questions about them.",
             "Read everything. One sentence matters, the rest does not.")
SENTENCES = ("The river runs to the sea.", "Birds sing in the garden.", "The road is long.", "Rain falls on the roof.",
             "The cat sleeps by the fire.", "Snow lies on the hills.", "We walk and we rest.", "The bell rings at noon.",
             "Nobody comes and nobody goes.", "The moon is white.", "The wind blows from the north.", "Bread is on the table.",
             "The train leaves early.", "Children play in the yard.", "The clock ticks on the wall.", "Leaves fall in autumn.",
             "The door is open.", "Water is cold in winter.", "The lamp burns low.", "Ships sail past the harbour.",
             "The dog barks at night.", "Stars shine above the town.", "It is warm today.", "They read and they write.",
             "The soup is hot.", "A horse stands in the field.", "Up and down and round about.", "The wood is dark.")
