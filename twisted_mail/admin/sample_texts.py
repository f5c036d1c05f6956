"""What sample mail is made of: names, words, sentences, and texts in many languages with the charsets of their time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["CHARSET_TEXTS", "LISTS", "PARAGRAPHS", "PEOPLE", "RUNNING", "SUBJECTS", "WORDS"]

PEOPLE: Final[Sequence[tuple[str, str]]] = (
    ("Clara Ode", "clara@example.net"),
    ("Dmitri Orlov", "dmitri@example.com"),
    ("Eun-ji Park", "eunji@example.org"),
    ("François Lefèvre", "francois@example.net"),
    ("Grace Mbeki", "grace@example.com"),
    ("Håkan Åström", "hakan@example.org"),
    ("Inês Carvalho", "ines@example.net"),
    ("Jun Tanaka", "jun@example.com"),
    ("Katarzyna Żak", "kasia@example.org"),
    ("Liam O'Connor", "liam@example.net"),
    ("山田太郎", "taro@example.com"),
    ("Мария Петрова", "maria@example.org"),
)
LISTS: Final[Sequence[tuple[str, str]]] = (
    ("twisted-python", "twisted-python@lists.example.org"),
    ("choir", "choir@lists.example.org"),
    ("allotments", "allotments@lists.example.org"),
)
SUBJECTS: Final[Sequence[str]] = (
    "Lunch on Thursday?",
    "Minutes of the last meeting",
    "The heating is out again",
    "Your order has been sent",
    "Train tickets to Utrecht",
    "Question about the invoice 2026-0417",
    "Photographs of the garden",
    "Rehearsal moved to half past seven",
    "Draft of chapter three, with the corrections that we talked about on the telephone last week and a few new ones",
    "Welcome to the library",
    "Keys",
    "Re-opening of the bridge",
)
WORDS: Final[Sequence[str]] = tuple(
    "apple bridge candle door evening forest garden harbour island journey kettle letter meadow night orchard paper "
    "quarter river stone table umbrella village window yellow zebra about before common during every further great "
    "however inside just kind later morning never often please quiet rather several together under very where young".split()
)
PARAGRAPHS: Final[Sequence[str]] = (
    "Thank you for your letter. I have read it twice, and I agree with nearly all of it. There are two things that I should "
    "like to talk about before we go on, and neither of them is urgent.",
    "The parcel came this morning, a day earlier than they had said. Everything was in it but the small screws. I have "
    "written to them about it.",
    "We meet at the station at ten past eight, on the side of the river. Whoever comes later finds us in the third carriage.",
    "From now on the door at the back is locked at six. Ask at the desk if you need to get in after that.",
    "I attach the figures for the last quarter. The second table has a mistake in its last line, which does not change the "
    "total; it will be right in the next version.",
    "It rained for most of the week, so we have done the inside first: the kitchen is white now, and the hall will be on "
    "Saturday, if the paint has come by then.",
    ".A line that begins with a dot is nothing special, until it goes through SMTP.",
    "Could you send me the address of the man who mended your bicycle? Mine makes a noise like a coffee mill.",
    "The tests pass on both machines. What is left is the document, and for that I need an hour without interruptions.",
)
CHARSET_TEXTS: Final[Sequence[tuple[str, str, str]]] = (
    ("iso-8859-1", "Réunion à l'école", "Bonjour,\n\nla réunion aura lieu à l'école, près de la forêt.\n\nÀ bientôt\n"),
    ("iso-8859-2", "Zażółć gęślą jaźń", "Dzień dobry,\n\nproszę o przesłanie umów do piątku.\n\nŻyczę miłego dnia\n"),
    ("koi8-r", "Привет из Москвы", "Здравствуйте!\n\nВстреча переносится на четверг, в десять часов.\n\nДо свидания\n"),
    ("windows-1251", "Отчёт за октябрь", "Добрый день,\n\nотчёт готов, таблицы в конце письма.\n"),
    ("windows-1252", "Angebot – 20 € günstiger", "Guten Tag,\n\nunser Angebot – „solange der Vorrat reicht“ – kostet 20 €.\n"),
    ("iso-8859-7", "Καλημέρα", "Καλημέρα σας,\n\nη συνάντηση είναι αύριο το πρωί.\n"),
    ("iso-8859-9", "İstanbul'dan selamlar", "Merhaba,\n\nİstanbul'a ne zaman geliyorsunuz? Görüşmek üzere.\n"),
    ("iso-2022-jp", "会議のお知らせ", "お世話になっております。\n\n会議は木曜日の十時からです。\n\nよろしくお願いいたします。\n"),
    ("shift_jis", "写真を送ります", "こんにちは。\n\n先週の写真を送ります。\n"),
    ("euc-kr", "회의 안내", "안녕하세요.\n\n회의는 목요일 열 시에 있습니다.\n"),
    ("gb2312", "会议通知", "您好，\n\n会议改到星期四上午十点。\n\n谢谢\n"),
    ("big5", "會議通知", "您好，\n\n會議改到星期四上午十點。\n\n謝謝\n"),
    ("utf-8", "Grüße, привет, 你好 👋", "Ein Text in vielen Schriften: Ελληνικά, עברית, العربية, हिन्दी, ไทย, 🦊.\n"),
    ("us-ascii", "Plain as can be", "Nothing but ASCII here.\n"),
)
RUNNING: Final[Sequence[tuple[str, str]]] = (
    ("שלום מתל אביב", "שלום רב,\n\nהפגישה תתקיים ביום חמישי בשעה עשר.\n\nבברכה\n"),
    ("دعوة إلى الاجتماع", "السلام عليكم،\n\nالاجتماع يوم الخميس الساعة العاشرة.\n\nمع أطيب التحيات\n"),
    ("🎉🎂 Happy birthday! 🥳", "🎈" * 30 + "\n\nMany happy returns of the day!\n"),
    ("นัดประชุมวันพฤหัสบดี", "สวัสดีครับ\n\nประชุมวันพฤหัสบดีเวลาสิบโมงเช้า\n"),
    ("Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft", "x" * 900 + "\n\nOne long line.\n"),
)
