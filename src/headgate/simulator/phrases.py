"""The sentences of which simulated answers are made: plain ASCII, in the voice of a support desk."""

OPENERS = (
    "Thanks for reaching out.",
    "Good question.",
    "Happy to help with this.",
    "Here is how this works.",
    "This can be done in a few steps.",
    "Let us go through it together.",
    "That is a common request.",
    "Sure, this is quick to set up.",
)

STEPS = (
    "Open the account menu and choose Settings to see the current state.",
    "The change takes effect within a few minutes for everyone in the team.",
    "You will receive a confirmation by email once the request is complete.",
    "If the page looks outdated, sign out and sign in again.",
    "Only an administrator of the workspace can approve this step.",
    "Invoices are listed under Billing and can be downloaded as PDF.",
    "Refunds usually arrive on the same card within five business days.",
    "The order page shows the tracking number as soon as the parcel leaves us.",
    "Please keep the reference number, our colleagues will ask for it.",
    "Check that the address on file is complete before you continue.",
    "The free plan includes one project and three members.",
    "A link to reset the password is valid for thirty minutes.",
    "Existing sessions on other devices end when the password changes.",
    "Exports are prepared in the background and stay available for a week.",
    "The limit resets at the beginning of each calendar month.",
    "Notifications can be muted for each project separately.",
    "Select the item, press Edit, and confirm with Save.",
    "Two-factor codes are accepted from any standard authenticator.",
    "Deleted entries can be restored from the archive for sixty days.",
    "The integration needs a new key whenever its permissions change.",
    "Large uploads continue automatically after a short interruption.",
    "Prices on the page already include taxes for your region.",
    "A downgrade applies from the next billing date, not earlier.",
    "Shared links stop working as soon as access is withdrawn.",
)

CLOSERS = (
    "Let us know if anything is unclear.",
    "Reply here if it does not work as described.",
    "We are glad to look into it further.",
    "A colleague can take over at any time.",
    "Anything else we can do for you?",
    "The help centre has a page with pictures.",
    "We hope this solves it.",
    "Have a good day.",
)

ACCENTED = "Çözüm şöyle: naïve café — 你好, 世界 ✓ 🎉 Ünïcödé žluťoučký. "
